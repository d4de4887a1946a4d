"""What reading a graph mends, one property at a time, on graphs of a few nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from tests.surgery.graphs import run_model
from trt_blendmask.errors import DataError
from trt_blendmask.surgery.reading.group_norm import unify_group_norms
from trt_blendmask.surgery.reading.load import load_raw
from trt_blendmask.surgery.reading.read_graph import read_graph

FLOAT = onnx.TensorProto.FLOAT
node = helper.make_node
SIDE, CHANNELS, GROUPS = 6, 8, 4
RNG = np.random.default_rng(5)
X2 = np.array([1, 1, 2, 2], np.float32)


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, Any], opset: int, ir: int = 8) -> onnx.ModelProto:
    """x float32 [1, 8, 6, 6] -> y; constants are also inputs where the IR is old."""
    x = helper.make_tensor_value_info("x", FLOAT, [1, CHANNELS, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", FLOAT, None)
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    inputs = [x]
    if ir < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(nodes, "g", inputs, [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def read(model: onnx.ModelProto, folder: Path) -> tuple[gs.Graph, str]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    graph, steps = read_graph(load_raw(path), path)
    return graph, " ".join(step.sentence for step in steps)


def output_of(graph: gs.Graph, x: Any) -> Any:
    model = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return run_model(model, {"x": x})["y"]


def picture() -> Any:
    return np.random.default_rng(0).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)


def enlarged(x: Any, mode: str) -> Any:
    """Twice the size, row by row and column by column: half-pixel, or nearest."""
    result = np.zeros((*x.shape[:2], 2 * SIDE, 2 * SIDE), np.float64)
    for i in range(2 * SIDE):
        for j in range(2 * SIDE):
            if mode == "nearest":
                result[..., i, j] = x[..., i // 2, j // 2]
                continue
            places = []
            for at in (i, j):
                place = min(max((at + 0.5) / 2 - 0.5, 0), SIDE - 1)
                low = int(place)
                places.append((low, min(low + 1, SIDE - 1), place - low))
            (a, b, v), (c, d, u) = places
            result[..., i, j] = (x[..., a, c] * (1 - u) + x[..., a, d] * u) * (1 - v)
            result[..., i, j] += (x[..., b, c] * (1 - u) + x[..., b, d] * u) * v
    return result


RESIZE_11 = {"r": np.zeros(0, np.float32), "s": X2}


@pytest.mark.parametrize(
    ("opset", "op", "inputs", "attributes", "mended"),
    [
        (9, "Upsample", "xs", {}, True),
        (10, "Resize", "xs", {}, True),
        (11, "Resize", "xrs", {"coordinate_transformation_mode": "asymmetric"}, True),
        (11, "Resize", "xrs", {"coordinate_transformation_mode": "pytorch_half_pixel"}, False),
        (13, "Resize", "xrs", {"coordinate_transformation_mode": "half_pixel"}, False),
        (19, "Resize", "xrs", {"coordinate_transformation_mode": "half_pixel", "antialias": 0}, False),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_enlarging(
    tmp_path: Path, mode: str, opset: int, op: str, inputs: str, attributes: dict[str, Any], mended: bool
) -> None:
    if mode == "nearest" and opset > 10:
        attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    constants = {name: values for name, values in RESIZE_11.items() if name in inputs}
    model = model_of([node(op, list(inputs), ["y"], mode=mode, **attributes)], constants, opset, 3)
    graph, said = read(model, tmp_path)
    assert graph.opset == 17
    np.testing.assert_allclose(output_of(graph, picture()), enlarged(picture(), mode), rtol=0, atol=1e-5)
    assert ("half-pixel" in said) == (mended and mode == "linear")


def test_corners_aligned_stay_aligned(tmp_path: Path) -> None:
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    model = model_of([node("Resize", ["x", "r", "s"], ["y"], **attributes)], RESIZE_11, 11)
    graph, said = read(model, tmp_path)
    assert not said
    np.testing.assert_array_equal(output_of(graph, picture()), run_model(model, {"x": picture()})["y"])


def test_ops_of_2019(tmp_path: Path) -> None:
    """Attributes that became inputs, arithmetic on shapes of that time, nodes that do nothing once trained."""
    nodes = [
        node("Slice", ["x"], ["a"], axes=[2], starts=[1], ends=[9999]),
        node("Pad", ["a"], ["b"], pads=[0, 0, 1, 0, 0, 0, 0, 0], value=2.0, mode="constant"),
        node("Dropout", ["b"], ["c"], ratio=0.5),
        node("BatchNormalization", ["c", "g", "h", "m", "v"], ["d"], epsilon=1e-5, momentum=0.9),
        node("Shape", ["d"], ["e0"]),
        node("Slice", ["e0"], ["e1"], axes=[0], starts=[2], ends=[4]),
        node("Cast", ["e1"], ["e2"], to=FLOAT),
        node("Constant", [], ["e3"], value=numpy_helper.from_array(np.array([12, 12], np.float32))),
        node("Div", ["e3", "e2"], ["e4"]),
        node("Constant", [], ["e5"], value=numpy_helper.from_array(np.array([1, 1], np.float32))),
        node("Concat", ["e5", "e4"], ["e6"], axis=0),
        node("Upsample", ["d", "e6"], ["f"], mode="nearest"),
        node("Clip", ["f"], ["h1"], min=-1.0, max=1.0),
        node("Identity", ["h1"], ["y"]),
    ]
    constants = {name: RNG.uniform(0.5, 1.5, CHANNELS).astype(np.float32) for name in "ghmv"}
    model = model_of(nodes, constants, 9, 3)
    graph, said = read(model, tmp_path)
    assert [n.op for n in graph.nodes] == ["Slice", "Pad", "BatchNormalization", "Resize", "Clip"]
    assert [x.name for x in graph.inputs] == ["x"]
    np.testing.assert_allclose(output_of(graph, picture()), run_model(model, {"x": picture()})["y"], rtol=0, atol=1e-6)
    assert "arithmetic on shapes" in said


GAMMA, BETA = (RNG.normal(1, 0.3, CHANNELS).astype(np.float32) for _ in range(2))


def group_normed(x: Any, gamma: Any, beta: Any) -> Any:
    groups = x.astype(np.float64).reshape(1, GROUPS, -1)
    groups = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    return groups.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]


def spelled(
    split: list[int],
    join: list[int],
    swapped: bool = False,
    shape: tuple[int, ...] = (CHANNELS, 1, 1),
    scale: float = 1,
) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Group norm in five nodes as exporters write it."""
    mul, add = (["j", "gamma"], ["m", "beta"]) if not swapped else (["gamma", "j"], ["beta", "m"])
    nodes = [
        node("Relu", ["x"], ["r"], "before"),
        node("Reshape", ["r", "split"], ["s"]),
        node("InstanceNormalization", ["s", "ones", "zeros"], ["n"], epsilon=1e-5),
        node("Reshape", ["n", "join"], ["j"]),
        node("Mul", mul, ["m"]),
        node("Add", add, ["y"]),
    ]
    constants = {
        "split": np.array(split, np.int64),
        "join": np.array(join, np.int64),
        "ones": np.full(GROUPS, scale, np.float32),
        "zeros": np.zeros(GROUPS, np.float32),
        "gamma": GAMMA.reshape(shape),
        "beta": BETA.reshape(shape),
    }
    return nodes, constants


FULL = [1, CHANNELS, SIDE, SIDE]


@pytest.mark.parametrize(
    "form",
    [
        spelled([0, GROUPS, -1], FULL),
        spelled([1, GROUPS, -1], [0, CHANNELS, SIDE, -1], swapped=True),
        spelled([1, GROUPS, CHANNELS // GROUPS * SIDE * SIDE], FULL, shape=(1, CHANNELS, 1, 1)),
        spelled([0, GROUPS, -1, 1], FULL),
    ],
    ids=["usual", "swapped", "full-shapes", "four-dimensions"],
)
def test_group_norm_is_one_unit(tmp_path: Path, form: tuple[list[onnx.NodeProto], dict[str, Any]]) -> None:
    graph, _ = read(model_of(*form, 13), tmp_path)
    assert unify_group_norms(graph) == 1
    names = ["before", *(f"before.norm{part}" for part in (".split", "", ".join", ".scale", ".shift"))]
    assert [n.name for n in graph.nodes] == names
    assert list(graph.nodes[1].inputs[1].values) == [0, GROUPS, -1]
    assert list(graph.nodes[3].inputs[1].values) == [0, *FULL[1:]]
    assert graph.nodes[4].inputs[1].values.shape == (CHANNELS, 1, 1)
    wanted = group_normed(np.maximum(picture(), 0), GAMMA, BETA)
    np.testing.assert_allclose(output_of(graph, picture()), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", [18, 21])
def test_the_op_becomes_the_unit(tmp_path: Path, opset: int) -> None:
    """Up to opset 20 weights are per group; those files stay correct, and only the later ones are one unit."""
    count = CHANNELS if opset >= 21 else GROUPS
    gamma, beta = GAMMA[:count], BETA[:count]
    nodes = [
        node("Relu", ["x"], ["r"], "before"),
        node("GroupNormalization", ["r", "gamma", "beta"], ["y"], "gn", num_groups=GROUPS, epsilon=1e-5),
    ]
    graph, said = read(model_of(nodes, {"gamma": gamma, "beta": beta}, opset, 10), tmp_path)
    assert "GroupNormalization" in said
    assert graph.opset == 17
    assert unify_group_norms(graph) == (1 if opset >= 21 else 0)
    repeated = CHANNELS // count
    wanted = group_normed(np.maximum(picture(), 0), np.repeat(gamma, repeated), np.repeat(beta, repeated))
    np.testing.assert_allclose(output_of(graph, picture()), wanted, rtol=0, atol=1e-5)


def test_what_only_looks_like_group_norm(tmp_path: Path) -> None:
    """Other factors inside: no unit, and nothing changes."""
    model = model_of(*spelled([0, GROUPS, -1], FULL, scale=2), 13)
    graph, _ = read(model, tmp_path)
    assert unify_group_norms(graph) == 0
    np.testing.assert_allclose(output_of(graph, picture()), run_model(model, {"x": picture()})["y"], rtol=0, atol=1e-6)


def test_copies_become_one(tmp_path: Path) -> None:
    """Equal bits, type and shape; a constant of a Constant node as well; what differs in one bit stays."""
    weight = RNG.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    other = weight.copy()
    other.view(np.uint32)[0, 0, 0, 0] ^= 1
    names = ["w1", "w2", "w3", "other"]
    data = ["x", "a", "b", "c"]
    nodes = [node("Constant", [], ["w3"], value=numpy_helper.from_array(weight))]
    nodes += [
        node("Conv", [before, w], [after], f"conv_{w}", pads=[1] * 4)
        for before, w, after in zip(data, names, [*data[1:], "y"], strict=True)
    ]
    model = model_of(nodes, {"w1": weight, "w2": weight, "other": other}, 13)
    graph, said = read(model, tmp_path)
    first, second, third, last = (n.inputs[1] for n in graph.nodes)
    assert first is second is third
    assert last is not first
    assert said.startswith("2 of 4 constants were copies of others: 0.0 -> 0.0 MB")
    np.testing.assert_array_equal(output_of(graph, picture()), run_model(model, {"x": picture()})["y"])


def test_huge_constants_are_not_worked_out(tmp_path: Path) -> None:
    """8 TB of zeros in 100 bytes."""
    nodes = [
        node("ConstantOfShape", ["much"], ["z"]),
        node("ReduceMax", ["z"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["y"]),
    ]
    before = peak_mb()
    graph, _ = read(model_of(nodes, {"much": np.array([1 << 20, 1 << 21], np.int64)}, 13), tmp_path)
    assert [n.op for n in graph.nodes] == ["ConstantOfShape", "ReduceMax", "Add"]
    assert peak_mb() - before < 100


def peak_mb() -> float:
    resource = pytest.importorskip("resource") if os.name != "posix" else __import__("resource")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e3


@pytest.mark.parametrize("dims", [[3, 4], [1 << 31, 1], [-1]])
def test_a_constant_that_lies(tmp_path: Path, dims: list[int]) -> None:
    model = model_of([node("Add", ["x", "c"], ["y"])], {"c": np.zeros(5, np.float32)}, 13)
    model.graph.initializer[0].dims[:] = dims
    with pytest.raises(DataError, match=r"'c'.*does not hold together"):
        read(model, tmp_path)


def test_two_constants_of_one_name(tmp_path: Path) -> None:
    model = model_of([node("Add", ["x", "c"], ["y"])], {"c": np.zeros(1, np.float32)}, 13)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "c"))
    with pytest.raises(DataError, match="two"):
        read(model, tmp_path)
