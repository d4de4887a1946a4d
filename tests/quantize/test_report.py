"""The report's numbers against the same done by hand, and its files."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.quantize.networks import chain, table_of
from trt_blendmask.agreement import Agreement
from trt_blendmask.calibrate.histogram import Counts, Histogram
from trt_blendmask.quantize.gate import Verdict
from trt_blendmask.quantize.int8 import prepare_int8
from trt_blendmask.quantize.report import TensorRow, activation_row, describe, tensor_rows, weight_row, write_report
from trt_blendmask.quantize.weights import QuantisedWeight

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
    row = activation_row("x", threshold, counted(values))
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
    report = describe(tiny(half), [])
    cells = 16 * 16
    middle = "FP16" if half else "FP32"
    seen = {row.part: {p: m for p, m in row.macs.items() if m} for row in report.parts}
    expected = {"backbone": {"INT8": cells * 576}, "fpn": {middle: cells * 64}, "predictors": {"FP32": cells * 32}}
    assert seen == expected
    assert report.trunk_share == pytest.approx(576 / (576 + 64 + 32))
    assert report.tensors == ()
    shares = ["100.0%", "-", "-"] if half else ["100.0%", "-"]
    assert report.lines()[1].split() == ["backbone", "1", "0.1", "M", "85.7%", *shares, "1", "Conv"]


def test_weights_equal_quantising_them_by_hand() -> None:
    weight = np.random.default_rng(1).standard_t(3, (6, 5, 3, 3)).astype(np.float32)
    scales = (0.5 / 127 * np.abs(weight).max(axis=(1, 2, 3))).astype(np.float32)
    steps = weight / scales[:, None, None, None]
    codes = np.clip(np.rint(steps), -127, 127)
    error = codes * scales[:, None, None, None] - weight
    row = weight_row("w", weight, QuantisedWeight(codes.astype(np.int8), scales))
    assert row.sqnr_db == pytest.approx(10 * np.log10((weight**2).sum() / (error**2).sum()), abs=1e-3)
    assert row.peak == pytest.approx(np.abs(steps).max())
    assert row.clipped == pytest.approx((np.abs(steps) > 127.5).mean(), abs=1e-3)
    assert row.clipped > 0
    assert row.title == "w (weights)"


def test_every_quantised_tensor_has_a_row() -> None:
    """Activations with the table's thresholds, and weights; those of layers that stay float have none."""
    random = np.random.default_rng(2)
    model = chain([random.standard_normal((4, 4, 3, 3)).astype(np.float32) for _ in range(4)])
    prepared = prepare_int8(model, table_of(model, 3.0))
    counts = dict.fromkeys(prepared.plan.tensors, counted(drawn("one-sided")))
    rows = {row.title: row for row in tensor_rows(prepared, (), counts)}
    assert set(rows) == {*prepared.plan.tensors, "w1 (weights)", "w2 (weights)"}
    for name in prepared.plan.tensors:
        assert rows[name].threshold == pytest.approx(3, rel=1e-3)  # its step is a half precision number
    fewer = {row.title for row in tensor_rows(prepared, {"conv1"}, counts)}
    assert fewer == {"r1", "w2 (weights)"}
    assert {row.kind for row in tensor_rows(prepared, (), {})} == {"weights"}
    zeros = dict.fromkeys(prepared.plan.tensors, counted(np.zeros(9)))
    assert {row.kind for row in tensor_rows(prepared, (), zeros)} == {"weights"}


def rows_of(**kinds: np.ndarray) -> list[TensorRow]:
    return [activation_row(name, 2.0, counted(values)) for name, values in kinds.items()]


def test_worst_tensors_come_first() -> None:
    report = describe(tiny(True), rows_of(y=np.linspace(-2, 2, 9999), x=drawn("heavy tail")))
    assert [row.name for row in report.tensors] == ["x", "y"]
    assert report.tensors[0].sqnr_db < report.tensors[1].sqnr_db


def test_files_hold_together(tmp_path: Path) -> None:
    report = describe(tiny(True), rows_of(x=drawn("two-sided")))
    verdict = Verdict(Agreement(0.98, 0.99, 0.96, 0.01, 0, 9, 9, 9, {"small": 0.9, "large": 0.99}), 3, "a.png")
    page, facts = write_report(report, verdict, "a & b", tmp_path / "report.html")
    text = page.read_text()
    HTMLParser().feed(text)
    assert "a &amp; b" in text
    assert "mask IoU 0.9600 (small 0.9000, large 0.9900 objects)" in text
    assert "--max-drop 0.3" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert text.count("<svg") == 1
    assert text.count('class="cut"') == 2
    assert 'class="clipped"' in text
    values = json.loads(facts.read_text())
    assert values["tensors"][0]["sqnr_db"] == pytest.approx(report.tensors[0].sqnr_db, abs=1e-3)
    assert values["trunk_int8_share"] == report.trunk_share
    assert (values["agreement"]["mask_iou"], values["agreement"]["pictures"]) == (0.96, 3)
    assert "no pictures are held out" in write_report(report, None, "", tmp_path / "r.html")[0].read_text()


def test_names_that_are_too_long_keep_their_end(tmp_path: Path) -> None:
    name = "/m/backbone/bottom_up/res2/res2.0/shortcut/with/a/long/way/conv1/Relu_output_0"
    report = describe(tiny(True), rows_of(**{name: drawn("one-sided")}))
    text = write_report(report, None, "", tmp_path / "r.html")[0].read_text()
    assert ">…" in text
    assert f">{name}<" not in text.split("<details>")[0]
    assert "conv1/Relu_output_0<" in text


def test_a_constant_tensor_has_no_error(tmp_path: Path) -> None:
    report = describe(tiny(False), rows_of(x=np.full(100, 2.0)))
    assert report.tensors[0].sqnr_db > 30
    json.loads(write_report(report, None, "", tmp_path / "r.html")[1].read_text(), parse_constant=pytest.fail)
