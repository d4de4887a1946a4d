"""Parts, types, multiply-adds and metadata of ONNX files, against what ONNX Runtime computes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import ROOT
from trt_blendmask.inspect import inspect
from trt_blendmask.inspect.findings import KINDS
from trt_blendmask.surgery.part_rows import sum_of

EXPORTERS = ROOT / "tests" / "golden" / "exporter_files.tar.xz"
WHOLE = ROOT / "tests" / "golden" / "whole_graphs"


def macs_that_run(path: Path) -> Counter[str]:
    """Multiply-adds by operator, from the shapes that tensors have while ONNX Runtime runs the file."""
    model = onnx.load(path)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    wanted = {name for node in layers for name in (*node.input[:2], node.output[0])} - set(sizes)
    names = {output.name for output in model.graph.output} | {value.name for value in model.graph.input}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in sorted(wanted - names))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {i.name: np.zeros(i.shape, np.uint8 if "uint8" in i.type else np.float32) for i in session.get_inputs()}
    outputs = [output.name for output in session.get_outputs()]
    sizes |= {name: value.shape for name, value in zip(outputs, session.run(outputs, feeds), strict=True)}
    sizes |= {name: value.shape for name, value in feeds.items()}
    macs: Counter[str] = Counter()
    for node in layers:
        first, second = sizes[node.input[0]], sizes[node.input[1]]
        inner = math.prod(second[1:]) if node.op_type == "Conv" else first[-1]
        macs[node.op_type] += math.prod(sizes[node.output[0]]) * inner
    return macs


@pytest.mark.parametrize("name", ["raw", "model", "fp16", "int8"])
def test_multiply_adds_are_those_that_run(name: str, files: dict[str, Path]) -> None:
    found = inspect(files[name])
    assert sum_of(found.parts).total == macs_that_run(files[name]).total()
    layers = [node.op_type for node in onnx.load(files[name]).graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert sum_of(found.parts).ops == Counter(layers)


def test_precisions(files: dict[str, Path]) -> None:
    shares = {
        name: {p: sum_of(inspect(files[name]).parts).share(p) for p in ("INT8", "FP16", "FP32")}
        for name in ("model", "fp16", "int8")
    }
    assert shares["model"] == {"INT8": 0, "FP16": 0, "FP32": 1}
    assert shares["fp16"]["FP16"] > 0.99
    model = onnx.load(files["int8"])
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    quantised = sum(
        node.op_type == "Conv" and {made_by.get(name) for name in node.input[:2]} == {"DequantizeLinear"}
        for node in model.graph.node
    )
    assert sum_of(inspect(files["int8"]).parts).layers["INT8"] == quantised > 50
    assert shares["int8"]["INT8"] > 0.7


def test_stages_are_told_apart(files: dict[str, Path]) -> None:
    kinds = {name: inspect(files[name]).kind for name in files if name != "checkpoint"}
    assert kinds == {
        "raw": "raw-head-onnx",
        **dict.fromkeys(("model", "plugin", "aot", "fp16", "int8"), "deployable-onnx"),
        "trunk": "trunk-onnx",
        "tail": "tail-onnx",
        "table": "calibration-table",
        "cache": "calibration-cache",
        "engine": "engine",
        "passport": "passport",
    }
    assert set(kinds.values()) < set(KINDS)


def test_metadata_ends_and_where_it_runs(files: dict[str, Path]) -> None:
    found = inspect(files["plugin"])
    assert found.spec is not None
    assert (found.spec.tail, found.spec.input_hw, found.spec.max_detections) == ("plugin", (128, 160), 12)
    assert [(t.name, t.dtype, t.shape) for t in found.inputs] == [("images", "uint8", (1, 128, 160, 3))]
    assert [t.name for t in found.outputs] == ["count", "boxes", "scores", "classes", "masks"]
    where = {name: dict(inspect(files[name]).facts)["runs in"] for name in ("model", "plugin", "aot")}
    assert "ONNX Runtime" in where["model"]
    assert "libtrt_blendmask.so" in where["plugin"]
    assert "10.9" in where["aot"]
    raw = inspect(files["raw"])
    assert raw.next == f"trt-blendmask surgery {files['raw']} -o model.onnx"
    assert {row.part for row in raw.parts} == {"backbone", "fpn", "towers", "predictors", "basis", "top_layer"}


@pytest.mark.parametrize("name", ["550_r50_legacy", "dla34_small_legacy", "rt_r50_legacy"])
def test_raw_heads_of_adelaidets_exporter(name: str, reference: Path) -> None:
    path = reference / "onnx" / f"{name}.onnx"
    found = inspect(path)
    assert found.kind == "raw-head-onnx"
    assert found.spec is None
    assert ("K 6" if "dla34" in name else "K 4") in dict(found.facts)["heads"]
    assert sum_of(found.parts).total == macs_that_run(path).total()
    assert {"backbone", "fpn", "towers", "predictors", "basis", "top_layer"} == {row.part for row in found.parts}


def test_a_whole_graph_is_not_run(reference: Path) -> None:
    found = inspect(reference / "onnx" / "rt_r50_e2e_topk_dynamo.onnx")
    assert found.kind == "onnx"
    assert {"backbone", "top_layer"} < {row.part for row in found.parts}  # its weights have names
    assert "one RoiAlign" in found.notes[-1]
    assert found.next.startswith("trt-blendmask surgery ")
    nameless = inspect(WHOLE / "tiny_nms_legacy16.onnx")
    assert [row.part for row in nameless.parts] == ["network"]
    assert [t.shape for t in nameless.outputs] == [(-1, 4), (-1,), (-1,), (-1, -1, -1)]


def other_network(batch: int | str, shape: tuple[int, int] = (1, 10)) -> onnx.ModelProto:
    """A convolution, the mean, a product: a classifier."""
    values = {"w": np.zeros((8, 3, 3, 3), np.float32), "v": np.zeros((8, 10), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["y"], ["z"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["z", "v"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, *shape[1:]])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [1, "n"])
def test_another_network_is_told_by_what_it_looks_like(batch: int | str, tmp_path: Path) -> None:
    found = inspect(saved(other_network(batch), tmp_path / "other.onnx"))
    assert found.kind == "onnx"
    assert [row.part for row in found.parts] == ["network"]
    assert found.parts[0].total == 8 * 16 * 16 * 27 + 80
    assert any("a classifier" in note for note in found.notes)
    assert any("batch is open" in note for note in found.notes) is (batch == "n")
    assert found.inputs[0].shape == (-1 if batch == "n" else 1, 3, 16, 16)
    assert found.next == ""


def test_contradicting_shapes_are_a_note(tmp_path: Path) -> None:
    model = other_network(1)
    model.graph.initializer[1].dims[0] = 9
    found = inspect(saved(model, tmp_path / "other.onnx"))
    assert found.parts == ()
    assert any("cannot be counted" in note for note in found.notes)


@pytest.mark.parametrize("op", ["Conv", "MatMul", "Gemm", "ConvTranspose", "QLinearConv", "ConvInteger"])
@pytest.mark.parametrize("ends", [(0, 1), (1, 1), (2, 0), (9, 2)])
def test_nodes_that_lack_ends_are_a_note(op: str, ends: tuple[int, int], tmp_path: Path) -> None:
    model = other_network(1)
    bad = helper.make_node(op, ["x", "w", *"x" * 9][: ends[0]], ["bad", "bad2"][: ends[1]])
    model.graph.node.insert(0, bad)
    found = inspect(saved(model, tmp_path / "other.onnx"))
    assert found.kind == "onnx"
    assert found.notes


@pytest.mark.parametrize("side", [2**31, 2**62])
def test_absurd_shapes_are_a_note(side: int, tmp_path: Path) -> None:
    model = other_network(1)
    for value, place in ((model.graph.input[0], 2), (model.graph.input[0], 3)):
        value.type.tensor_type.shape.dim[place].dim_value = side
    found = inspect(saved(model, tmp_path / "other.onnx"))
    assert found.parts == ()
    assert any("cannot be counted" in note for note in found.notes)
    assert all(len(line) < 200 for line in found.lines(80))


def test_weights_in_another_file_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    model = other_network(1)
    options = {"save_as_external_data": True, "location": "other.data", "size_threshold": 0}
    onnx.save(model, path, **options)
    (tmp_path / "other.data").unlink()
    found = inspect(path)
    assert found.parts[0].total == 8 * 16 * 16 * 27 + 80
    assert any("other.data" in note for note in found.notes)
    assert [t.name for t in found.inputs] == ["x"]
    assert (found.weights[0].tensors, found.weights[0].values) == (2, 8 * 27 + 80)


def test_integer_operators_of_onnx_runtime(tmp_path: Path) -> None:
    nodes = [helper.make_node("QLinearConv", ["x", "s", "zero", "w", "s", "wzero", "s", "zero"], ["y"])]
    values = {
        "s": np.array(0.1, np.float32),
        "zero": np.array(0, np.uint8),
        "wzero": np.array(0, np.int8),
        "w": np.zeros((4, 3, 1, 1), np.int8),
    }
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 4, 5, 7])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = inspect(saved(model, tmp_path / "q.onnx"))
    assert found.parts[0].macs["INT8"] == 4 * 5 * 7 * 3 == found.parts[0].total


def test_the_table_of_an_int8_file_is_told(files: dict[str, Path]) -> None:
    sha256 = hashlib.sha256(files["table"].read_bytes()).hexdigest()
    assert sha256 in dict(inspect(files["int8"]).facts)["says"]


def test_metadata_of_a_later_version_is_a_note(files: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(files["model"])
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"kind"', '"sort": 1, "kind"')
    found = inspect(saved(model, tmp_path / "later.onnx"))
    assert (found.kind, found.spec) == ("deployable-onnx", None)
    assert any("pip install --upgrade trt-blendmask" in note for note in found.notes)
