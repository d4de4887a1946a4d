"""Constant subgraphs whose values are huge, take long or make no sense: name to nodes and constants."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

Nodes = list[tuple[str, list[str], dict[str, Any]]]  # op, inputs ("": the node before, or none), attributes
Bomb = tuple[Nodes, dict[str, Any]]


def hang(model: ModelProto, output: str, nodes: Nodes, constants: dict[str, Any]) -> None:
    """Add the largest value of the last of `nodes` to the float tensor `output`, so that nobody may drop them."""
    graph, last = model.graph, ""
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), f"bomb.{name}") for name, v in constants.items())
    made = []
    for i, (op, inputs, attributes) in enumerate(nodes):
        names = [f"bomb.{name}" if name in constants else last for name in inputs]
        last = f"bomb.{i}"
        made.append(helper.make_node(op, names, [last], **attributes))
    made.append(helper.make_node("ReduceMax", [last], ["bomb.max"], keepdims=0))
    made.append(helper.make_node("Cast", ["bomb.max"], ["bomb.float"], to=TensorProto.FLOAT))
    made.append(helper.make_node("Add", ["bomb.output", "bomb.float"], [output]))
    for node in graph.node:
        for ends in (node.input, node.output):
            for i, name in enumerate(ends):
                if name == output:
                    ends[i] = "bomb.output"
    graph.node.extend(made)


def _of(*values: int) -> Any:
    return np.array(values, np.int64)


_ROW, _COLUMN = np.ones((1, 40_000), np.float32), np.ones((40_000, 1), np.float32)
_SHAPE: Nodes = [("ConstantOfShape", ["shape"], {})]
BOMBS: dict[str, Bomb] = {
    "ConstantOfShape 4 GB": (_SHAPE, {"shape": _of(1 << 30)}),
    "ConstantOfShape 2**62": (_SHAPE, {"shape": _of(1 << 31, 1 << 31)}),
    "ConstantOfShape negative": (_SHAPE, {"shape": _of(-5)}),
    "ConstantOfShape of a computed 4 GB": (
        [("Mul", ["a", "a"], {}), ("ConstantOfShape", [""], {})], {"a": _of(1 << 15)}),
    "Expand 4 GB": ([("Expand", ["one", "shape"], {})], {"one": np.float32(1), "shape": _of(1 << 15, 1 << 15)}),
    "Tile 4 GB": ([("Tile", ["one", "by"], {})], {"one": np.ones(1, np.float32), "by": _of(1 << 30)}),
    "Tile twice as large, 40 times": (
        [("Tile", ["one", "by"], {}), *[("Tile", ["", "by"], {})] * 39],
        {"one": np.ones(1, np.float32), "by": _of(2)}),
    "Concat with itself, 40 times": (
        [("Concat", ["one", "one"], {"axis": 0}), *[("Concat", ["", ""], {"axis": 0})] * 39],
        {"one": np.ones(1, np.float32)}),
    "Concat of whole numbers, 40 times": (
        [("Concat", ["one", "one"], {"axis": 0}), *[("Concat", ["", ""], {"axis": 0})] * 39], {"one": _of(1)}),
    "Range 8 GB": ([("Range", ["a", "b", "c"], {})],
                       {"a": np.int64(0), "b": np.int64(1 << 30), "c": np.int64(1)}),
    "Range of step 0": ([("Range", ["a", "b", "c"], {})],
                            {"a": np.float32(0), "b": np.float32(1), "c": np.float32(0)}),
    "Pad 4 GB": ([("Pad", ["x", "pads"], {})],
                     {"x": np.ones((1, 1), np.float32), "pads": _of(0, 0, 1 << 15, 1 << 15)}),
    "MatMul 6 GB": ([("MatMul", ["c", "r"], {})], {"c": _COLUMN, "r": _ROW}),
    "Add 6 GB by broadcast": ([("Add", ["c", "r"], {})], {"c": _COLUMN, "r": _ROW}),
    "Where 6 GB": ([("Greater", ["c", "r"], {}), ("Where", ["", "c", "r"], {})], {"c": _COLUMN, "r": _ROW}),
    "Einsum 6 GB": ([("Einsum", ["c", "r"], {"equation": "ab,cd->ad"})], {"c": _COLUMN, "r": _ROW}),
    "MatMul that takes long": (
        [("MatMul", ["s", "s"], {}), *[("MatMul", ["", "s"], {})] * 400], {"s": np.ones((1500, 1500), np.float32)}),
    "OneHot 4 GB": ([("OneHot", ["i", "d", "v"], {})],
                        {"i": _of(*range(1000)), "d": np.int64(1 << 20), "v": np.array([0, 1], np.float32)}),
    "Resize 4 GB": ([("Resize", ["x", "", "s"], {})],
                        {"x": np.ones((1, 1, 4, 4), np.float32), "s": np.array([1, 1, 8192, 8192], np.float32)}),
    "Resize by nan": (
        [("Resize", ["x", "", "s"], {})],
        {"x": np.ones((1, 1, 4, 4), np.float32), "s": np.array([1, 1, np.nan, np.inf], np.float32)}),
    "EyeLike 4 GB": (
        [("ConstantOfShape", ["shape"], {}), ("EyeLike", [""], {})], {"shape": _of(1 << 15, 1 << 15)}),
    "GatherND that multiplies": ([("Gather", ["x", "i"], {})],
                                     {"x": np.ones((1, 1 << 16), np.float32), "i": np.zeros(1 << 15, np.int64)}),
    "Gather out of range": ([("Gather", ["x", "i"], {})], {"x": np.ones(4, np.float32), "i": _of(2**62)}),
    "ConvTranspose 4 GB": ([("ConvTranspose", ["x", "w"], {"strides": [8192, 8192]})],
                               {"x": np.ones((1, 1, 4, 4), np.float32), "w": np.ones((1, 1, 1, 1), np.float32)}),
    "RandomNormal 4 GB": ([("RandomNormal", [], {"shape": [1 << 30]})], {}),
    "Constant of many floats": ([("Constant", [], {"value_floats": [1.0] * 500_000})], {}),
    "Split into none": ([("Split", ["x"], {"axis": 0})], {"x": np.ones(0, np.float32)}),
    "Div by 0": ([("Div", ["a", "b"], {}), ("ConstantOfShape", [""], {})], {"a": _of(1), "b": _of(0)}),
    "Mod by 0": ([("Mod", ["a", "b"], {}), ("ConstantOfShape", [""], {})], {"a": _of(1), "b": _of(0)}),
    "Div that overflows": ([("Div", ["a", "b"], {})], {"a": _of(-(2**63)), "b": _of(-1)}),
}  # fmt: skip
