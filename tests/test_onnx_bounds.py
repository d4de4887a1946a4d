"""What a small ONNX file may not ask for, and what an honest one may."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.errors import DataError
from trt_blendmask.onnx_bounds import check_parts, check_runnable

FILE = Path("model.onnx")
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]


def model(nodes: list[Any], weights: dict[str, Any] | None = None, functions: list[Any] | None = None) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in (weights or {}).items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    ends[0].type.tensor_type.shape.dim.add().dim_value = 4
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=OPSETS, functions=functions or [], ir_version=8)


def chain(levels: int, width: int) -> list[Any]:
    """Function i calls function i - 1 `width` times."""
    made = []
    for i in range(levels):
        ends = [f"t{n}" for n in range(width + 1)]
        nodes = [helper.make_node(f"F{i - 1}" if i else "Relu", [a], [b], domain="f" if i else "")
                 for a, b in itertools.pairwise(ends)]  # fmt: skip
        made.append(helper.make_function("f", f"F{i}", ["t0"], [ends[-1]], nodes, OPSETS))
    return made


CALL = helper.make_node("F29", ["x"], ["y"], domain="f")
ITSELF = helper.make_function("f", "F29", ["a"], ["b"], [helper.make_node("F29", ["a"], ["b"], domain="f")], OPSETS)


@pytest.mark.parametrize("functions", [chain(30, 3), [ITSELF]], ids=["doubling", "itself"])
def test_functions_without_end(functions: list[Any]) -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match="at most 50000 nodes"):
        check_parts(model([CALL], functions=functions), FILE)
    assert time.monotonic() - began < 2


def test_functions_that_end() -> None:
    check_parts(model([CALL], functions=chain(30, 1)), FILE)


def test_dimensions_without_end() -> None:
    endless = model([helper.make_node("Relu", ["x"], ["y"])])
    endless.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2**62] * 1_000_000))
    began = time.monotonic()
    with pytest.raises(DataError, match="at most 16 dimensions"):
        check_parts(endless, FILE)
    assert time.monotonic() - began < 2


def test_a_vector_that_doubles() -> None:
    nodes = [helper.make_node("Concat", [f"a{i}"] * 2, [f"a{i + 1}"], axis=0) for i in range(40)]
    with pytest.raises(DataError, match="joins"):
        check_parts(model(nodes, {"a0": np.zeros(1, np.int64)}), FILE)


def test_names_that_are_no_text() -> None:
    content = model([helper.make_node("Relu", ["x"], ["y"], name="AAAA")]).SerializeToString()
    with pytest.raises(DataError, match="UTF-8"):
        check_parts(onnx.load_model_from_string(content.replace(b"AAAA", b"A\xff\xfeA")), FILE)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([helper.make_node("Expand", ["x", "s"], ["y"])], {"s": np.array([1 << 30, 4])}),
        ([helper.make_node("ConstantOfShape", ["s"], ["y"])], {"s": np.array([1 << 31, 1 << 31])}),
        ([helper.make_node("Tile", ["x", "n"], ["y"])], {"n": np.array([1 << 31])}),
        (
            [helper.make_node("ReduceSum", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["n"], to=TensorProto.INT64),
             helper.make_node("ConstantOfShape", ["n"], ["y"])],
            {},
        ),
        ([helper.make_node("MatMul", ["c", "r"], ["y"])], {"c": np.ones((9000, 1)), "r": np.ones((1, 9000))}),
        ([helper.make_node("Div", ["a", "b"], ["y"])], {"a": np.array([-(2**63)]), "b": np.array([-1])}),
    ],
    ids=["expand", "constant", "tile", "sized by the input", "constant product", "division"],
)  # fmt: skip
def test_models_that_do_not_fit(nodes: list[Any], weights: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"asks for|divides"):
        check_runnable(model(nodes, weights).SerializeToString(), FILE)


def test_int8_weights_may_be_unpacked() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["f"]), helper.make_node("MatMul", ["x", "f"], ["y"])]
    weights = {"w": np.ones((4, 1 << 24), np.int8), "s": np.float32(0.1)}
    check_runnable(model(nodes, weights).SerializeToString(), FILE)
