"""The form for ONNX Runtime's CPU: the same grids or finer ones, and convolutions between codes are integer kernels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from tests.quantize.networks import F32, chain, deployable, model_of, run, table_of
from trt_blendmask import load
from trt_blendmask.calibrate import graph_sha256, write_table
from trt_blendmask.quantize.int8 import quantize_int8
from trt_blendmask.quantize.int8_file import Int8Options, quantize_int8_file
from trt_blendmask.quantize.onnxruntime_form import to_onnxruntime
from trt_blendmask.structures import CalibrationTable

SEED = np.random.default_rng(8)


def drawn(*shape: int) -> F32:
    return SEED.standard_normal(shape).astype(np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)


def residual(relu: bool) -> onnx.ModelProto:
    """stem -> relu s -> (short b, long1 -> relu -> long2 c) -> b + c = d -> relu or not -> after -> last."""
    w = [helper.make_node("Conv", [i, f"w_{n}"], [o], n) for n, i, o in LAYERS]
    middle = [helper.make_node("Add", ["b", "c"], ["d"], "add")]
    middle += [helper.make_node("Relu", ["d"], ["e"], "relu_e")] if relu else [helper.make_node("Neg", ["d"], ["e"])]
    relus = {o: helper.make_node("Relu", [o], [r], f"relu_{o}") for o, r in (("s0", "s"), ("a0", "a"))}
    nodes = [w[0], relus["s0"], w[1], w[2], relus["a0"], w[3], *middle, w[4], w[5]]
    return model_of(nodes, {f"w_{n}": drawn(8, 8, 1, 1) for n, _, _ in LAYERS}, (1, 8, 12, 12))


LAYERS = [
    ("stem", "x", "s0"),
    ("short", "s", "b"),
    ("long1", "s", "a0"),
    ("long2", "a", "c"),
    ("after", "e", "f"),
    ("last", "f", "y"),
]


def table(model: onnx.ModelProto, x: F32, share: float) -> CalibrationTable:
    tensors = list(table_of(model).ranges)
    values = run(model, x, *tensors)
    ranges = {t: share * float(np.abs(v).max()) for t, v in zip(tensors, values, strict=True)}
    return CalibrationTable("0" * 64, "minmax", ranges, (), {})


@pytest.mark.parametrize("share", [1.0, 0.6], ids="{} of the largest".format)
def test_no_further_from_float_than_the_other_form(share: float) -> None:
    model = residual(relu=True)
    x = SEED.standard_normal((1, 8, 12, 12)).astype(np.float32)
    quantised = quantize_int8(model, table(model, x, share))
    (other,) = run(quantised, x, "y")
    to_onnxruntime(quantised)
    onnx.checker.check_model(quantised, full_check=True)
    (exact,), (got,) = run(model, x, "y"), run(quantised, x, "y")
    assert np.abs(got - exact).mean() < 1.6 * np.abs(other - exact).mean()  # it has a grid more
    assert np.abs(got - exact).max() > 0


def test_what_a_sum_reads_is_not_clipped_more_than_the_sum() -> None:
    """With ranges far too small for what the convolution hands to the sum, the sum is as in the other form."""
    model = residual(relu=True)
    x = SEED.standard_normal((1, 8, 12, 12)).astype(np.float32)
    ranges = table(model, x, 1.0).ranges
    quantised = quantize_int8(model, CalibrationTable("0" * 64, "minmax", {**ranges, "e": 0.2, "b": 0.1}, (), {}))
    to_onnxruntime(quantised)
    b, c, e = run(quantised, x, "b.dq", "long2.exact", "e.dq")
    assert np.abs(c).max() > 0.6  # it is clipped
    assert np.abs(e - np.clip(b + c, 0, 0.2)).max() < 0.003


@pytest.mark.parametrize("name", ["550_r50", "dla34_small"])
def test_convolutions_between_codes_are_integer_kernels(reference: Path, tmp_path: Path, name: str) -> None:
    model = deployable(reference, name, tmp_path)
    quantised = quantize_int8(model, table_of(model))
    kinds = {"tensorrt": kernels(quantised, tmp_path)}
    to_onnxruntime(quantised)
    kinds["onnxruntime"] = kernels(quantised, tmp_path)
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    backbone = sum("backbone" in node.name for node in model.graph.node if node.op_type == "Conv")
    assert kinds["onnxruntime"]["QLinearConv"] > 2 * kinds["tensorrt"]["QLinearConv"]
    assert kinds["onnxruntime"]["QLinearConv"] >= backbone - 1
    assert sum(kinds["onnxruntime"][kind] for kind in ("QLinearConv", "Conv", "FusedConv")) == convolutions


def kernels(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_a_relu_that_others_read_too_stays() -> None:
    model = chain([drawn(8, 3, 3, 3), drawn(8, 8, 3, 3), drawn(4, 8, 1, 1)])
    model.graph.output.append(helper.make_tensor_value_info("r0", onnx.TensorProto.FLOAT, None))
    model.graph.node.append(helper.make_node("Neg", ["r0"], ["z"], "reader"))
    quantised = quantize_int8(model, table_of(model))
    to_onnxruntime(quantised)
    x = SEED.standard_normal((1, 3, 9, 11)).astype(np.float32)
    assert np.array_equal(run(quantised, x, "r0")[0], run(model, x, "r0")[0])


def test_the_file_says_what_it_is_and_runs(reference: Path, tmp_path: Path) -> None:
    model = deployable(reference, "dla34_small", tmp_path)
    ranges = table_of(model).ranges
    write_table(CalibrationTable(graph_sha256(model), "minmax", ranges, (), {}), tmp_path / "table.json")
    output = tmp_path / "int8.onnx"
    report = quantize_int8_file(tmp_path / "model.onnx", tmp_path / "table.json", output, Int8Options(onnxruntime=True))
    assert report.typing is None
    assert not [line for line in report.lines() if "casts" in line]
    with load(output) as quantised:
        assert quantised.spec.precision == "int8"
        quantised(np.zeros((128, 160, 3), np.uint8))
    kinds = {tensor.data_type for tensor in onnx.load(output).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
    assert onnx.TensorProto.UINT8 in kinds
