"""ONNX files made to exhaust or mislead whoever walks, inlines or reads them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.folding import BOMBS, hang
from tests.fuzz.networks import OUTSIDE, Model, point_outside
from trt_blendmask.structures import METADATA_KEY

Change = Callable[[Model], None]


def hostile(data: bytes, output: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of changes of the good model `data`; `output` is the float output the bombs are hung onto."""
    for name, change in STRUCTURES.items():
        model = onnx.load_model_from_string(data)
        change(model)
        yield f"onnx: {name}", model.SerializeToString()
    for name, (nodes, constants) in BOMBS.items():
        model = onnx.load_model_from_string(data)
        hang(model, output, nodes, constants)
        yield f"onnx: folds to {name}", model.SerializeToString()
    yield "onnx: If in If, 40,000 deep", _deep_bytes(40_000)
    yield "onnx: sequence types, 50,000 deep", data + _deep_types(50_000)
    yield "onnx: only weights", b"\x08\x08:" + b"\x80\x80\x80\x80\x08"
    yield "onnx: a length of 2**63", data + b":" + b"\xff" * 8 + b"\x7f"
    yield "onnx: twice", data + data
    yield "onnx: empty fields", data + b"\x3a\x00" * 500_000


def _first(model: Model) -> Any:
    return next(t for t in model.graph.initializer if len(t.dims) == 4)


def _shape(*dims: int) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        tensor = _first(model)
        tensor.ClearField("raw_data")
        tensor.dims[:] = dims

    return change


def _outside(location: str) -> Callable[[Model], None]:
    return lambda model: point_outside(_first(model), location)


def _outside_in_a_node(model: Model) -> None:
    node = model.graph.node.add()
    node.op_type, node.output[:] = "Constant", ["stray"]
    attribute = node.attribute.add()
    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
    attribute.t.data_type, attribute.t.dims[:] = TensorProto.FLOAT, [16]
    point_outside(attribute.t, "../outside.bin")


def _outside_in_a_function(model: Model) -> None:
    probe = onnx.ModelProto()
    _outside_in_a_node(probe)
    model.functions.append(helper.make_function("f", "F", [], ["stray"], [probe.graph.node[0]], model.opset_import))
    model.graph.node.append(helper.make_node("F", [], ["stray2"], domain="f"))


def _outside_in_training(model: Model) -> None:
    tensor = model.training_info.add().algorithm.initializer.add()
    point_outside(tensor, "../outside.bin")


def _sparse(model: Model) -> None:
    made = model.graph.sparse_initializer.add()
    made.dims[:] = [2**31, 2**31]
    made.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "sparse"))
    made.indices.CopyFrom(numpy_helper.from_array(np.array([2**61]), "where"))


def _cycle(model: Model) -> None:
    nodes = model.graph.node
    nodes[0].input[0] = nodes[len(nodes) // 2].output[0]


def _names(model: Model) -> None:
    for node in model.graph.node:
        node.name = "n" * 100_000


def _nested(model: Model) -> None:
    graph = onnx.GraphProto()
    for depth in range(28):
        outer = onnx.GraphProto()
        node = helper.make_node("If", ["c"], ["x"], then_branch=graph, else_branch=onnx.GraphProto())
        outer.node.append(node)
        outer.name = f"g{depth}"
        graph = outer
    model.graph.node.extend(graph.node)


def _functions(calls: list[list[str]]) -> Callable[[Model], None]:
    """Function i calls those of `calls[i]`; the last is called by the graph."""

    def change(model: Model) -> None:
        for i, inner in enumerate(calls):
            ends = [f"t{n}" for n in range(len(inner) + 1)]
            nodes = [
                helper.make_node(op, [a], [b], domain="f") for op, a, b in zip(inner, ends, ends[1:], strict=False)
            ]
            nodes = nodes or [helper.make_node("Identity", ["t0"], ["t1"])]
            imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
            last = ends[-1] if inner else "t1"
            model.functions.append(helper.make_function("f", f"F{i}", ["t0"], [last], nodes, imports))
        model.opset_import.append(helper.make_opsetid("f", 1))
        end = model.graph.output[0].name
        model.graph.node.append(helper.make_node(f"F{len(calls) - 1}", [end], ["called"], domain="f"))

    return change


def _many(model: Model) -> None:
    names = [f"z{i}" for i in range(200_001)]
    names[0] = model.graph.output[0].name
    model.graph.node.extend(helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names))


def _wide(model: Model) -> None:
    model.graph.node.append(helper.make_node("Concat", [model.graph.output[0].name] * 200_000, ["wide"], axis=1))


def _opsets(model: Model) -> None:
    model.opset_import.extend(helper.make_opsetid(f"d{i}", 2**62) for i in range(50_000))


def _metadata(text: str) -> Callable[[Model], None]:
    return lambda model: helper.set_model_props(model, {METADATA_KEY: text})


STRUCTURES: dict[str, Change] = {
    "2 GB declared": _shape(2**29), "2**62 declared": _shape(2**31, 2**31),
    "a product that wraps": _shape(2**32, 2**32),
    "2**63 - 1": _shape(2**63 - 1), "negative": _shape(-1, 3, 3, 3), "100,000 axes": _shape(*[1] * 100_000),
    "no axes": _shape(), "zero": _shape(0, 0, 0, 0),
    **{f"weights in {place!r}": _outside(place) for place in OUTSIDE},
    "weights outside in a node": _outside_in_a_node, "weights outside in a function": _outside_in_a_function,
    "weights outside in training": _outside_in_training, "sparse": _sparse, "cycle": _cycle, "name bomb": _names,
    "28 nested Ifs": _nested, "function calls itself": _functions([["F0"]]),
    "functions call each other": _functions([["F1"], ["F0"]]),
    "functions double 40 times": _functions([[], *([f"F{i}"] * 2 for i in range(40))]),
    "functions times 100, 4 times": _functions([[], *([f"F{i}"] * 100 for i in range(4))]),
    "10,000 functions deep": _functions([[], *([f"F{i}"] for i in range(10_000))]),
    "unknown function": _functions([["Nobody"]]), "200,000 nodes": _many, "a node of 200,000 inputs": _wide,
    "50,000 opsets": _opsets, "metadata of brackets": _metadata("[" * 1_000_000),
    "metadata of null": _metadata("null"),
    "metadata of digits": _metadata("9" * 1_000_000), "metadata of a list": _metadata("[]"),
}  # fmt: skip


def _deep_bytes(depth: int) -> bytes:
    """Graphs in attributes in nodes, deeper than any parser should follow."""
    body = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # attribute.g, node.attribute, graph.node
            body = tag + _varint(len(body)) + body
        if len(body) > 3_000_000:
            break
    return b"\x08\x08\x3a" + _varint(len(body)) + body


def _deep_types(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        for tag in (b"\x0a", b"\x22"):  # sequence.elem_type, type.sequence_type
            body = tag + _varint(len(body)) + body
        if len(body) > 300_000:
            break
    info = b"\x0a\x01x\x12" + _varint(len(body)) + body
    graph = b"\x5a" + _varint(len(info)) + info
    return b"\x3a" + _varint(len(graph)) + graph


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
