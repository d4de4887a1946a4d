"""The report's numbers against the same done by hand, and its files."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.calibrate.histogram import Counts, Histogram
from trt_blendmask.quantize.report import describe, tensor_row, thresholds, write_report

SHAPE = [1, 8, 16, 16]


def counted(values: np.ndarray) -> Counts:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram.freeze()


def drawn(kind: str) -> np.ndarray:
    random = np.random.default_rng(3)
    values = random.standard_normal(200_000) if kind != "heavy tail" else random.standard_t(3, 200_000)
    return np.maximum(values, 0) if kind == "one-sided" else values


@pytest.mark.parametrize("kind", ["one-sided", "two-sided", "heavy tail"])
@pytest.mark.parametrize("threshold", [0.7, 3.0, 40.0])
def test_sqnr_and_clipped_share_equal_quantising_the_values(kind: str, threshold: float) -> None:
    values = drawn(kind).astype(np.float32).astype(np.float64)
    scale = threshold / 127
    error = np.clip(np.rint(values / scale), -128, 127) * scale - values
    row = tensor_row("x", threshold, counted(values))
    assert row.sqnr_db == pytest.approx(10 * np.log10((values**2).sum() / (error**2).sum()), abs=0.05)
    assert row.clipped == pytest.approx(float((np.abs(values) > threshold).mean()), abs=2e-3)
    assert row.peak == np.abs(values).max()


def tiny(half: bool) -> onnx.ModelProto:
    """Three convolutions by name: an INT8 one, a half and a float one."""
    random = np.random.default_rng(0)
    other = np.float16 if half else np.float32
    weights = {
        "a.q": random.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8),
        "b": random.standard_normal((8, 8, 1, 1)).astype(other),
        "c": random.standard_normal((4, 8, 1, 1)).astype(np.float32),
        "x.scale": np.array(2 / 127, np.float32),
        "a.scale": np.full(8, 0.01, np.float32),
        "zero": np.zeros((), np.int8),
        "zeros": np.zeros(8, np.int8),
    }
    to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x.scale", "zero"], ["x.q"]),
        helper.make_node("DequantizeLinear", ["x.q", "x.scale", "zero"], ["x.dq"]),
        helper.make_node("DequantizeLinear", ["a.q", "a.scale", "zeros"], ["a"], axis=0),
        helper.make_node("Conv", ["x.dq", "a"], ["y"], "backbone.res2.0.conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["y"], ["y.cast"], to=to),
        helper.make_node("Conv", ["y.cast", "b"], ["z"], "fpn.lateral3"),
        helper.make_node("Cast", ["z"], ["z.float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["z.float", "c"], ["out"], "head.P3.cls_logits"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 16, 16])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("half", [True, False])
def test_parts_by_precision(half: bool) -> None:
    report = describe(tiny(half), {})
    cells = 16 * 16
    middle = "FP16" if half else "FP32"
    seen = {row.part: {p: m for p, m in row.macs.items() if m} for row in report.parts}
    expected = {"backbone": {"INT8": cells * 576}, "fpn": {middle: cells * 64}, "predictors": {"FP32": cells * 32}}
    assert seen == expected
    assert report.trunk_share == pytest.approx(576 / (576 + 64 + 32))
    assert report.tensors == ()
    assert report.lines()[1].split() == ["backbone", "1", "0.1", "M", "100.0%", "1", "INT8"]


def test_thresholds_are_those_of_the_file() -> None:
    assert thresholds(tiny(True)) == pytest.approx({"x": 2.0})


def test_worst_tensors_come_first() -> None:
    model = tiny(True)
    counts = {"x": counted(drawn("heavy tail"))}
    model.graph.node.append(helper.make_node("QuantizeLinear", ["y", "x.scale", "zero"], ["y.q"]))
    report = describe(model, {**counts, "y": counted(np.linspace(-2, 2, 9999))})
    assert [row.name for row in report.tensors] == ["x", "y"]
    assert report.tensors[0].sqnr_db < report.tensors[1].sqnr_db


def test_files_hold_together(tmp_path: Path) -> None:
    counts = {"x": counted(drawn("two-sided"))}
    report = describe(tiny(True), counts)
    page, facts = write_report(report, counts, "a & b", tmp_path / "report.html")
    text = page.read_text()
    HTMLParser().feed(text)
    assert "a &amp; b" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("<svg") == 1
    assert text.count('class="cut"') == 2
    assert 'class="clipped"' in text
    values = json.loads(facts.read_text())
    assert values["tensors"][0]["sqnr_db"] == pytest.approx(report.tensors[0].sqnr_db, abs=1e-3)
    assert values["trunk_int8_share"] == report.trunk_share


def test_a_constant_tensor_has_no_error_and_one_of_zeros_is_left_out(tmp_path: Path) -> None:
    model = tiny(False)
    constant, zeros = counted(np.full(100, 2.0)), counted(np.zeros(100))
    assert describe(model, {"x": zeros}).tensors == ()
    counts = {"x": constant}
    report = describe(model, counts)
    assert report.tensors[0].sqnr_db > 30
    json.loads(write_report(report, counts, "", tmp_path / "r.html")[1].read_text(), parse_constant=pytest.fail)
