"""From the bundled model and its committed table to an INT8 file, and all that is written beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import onnx
import pytest

import trt_blendmask
from trt_blendmask.bundled import bundled_model
from trt_blendmask.cli import main
from trt_blendmask.errors import UsageError
from trt_blendmask.quantize import int8_file
from trt_blendmask.quantize.gate import NOT_COMPARED
from trt_blendmask.quantize.int8_file import Int8Options, quantize_int8_file
from trt_blendmask.quantize.plan import Layer
from trt_blendmask.quantize.sensitivity import Block
from trt_blendmask.synthetic import render_scene

TABLE = Path(__file__).parents[2] / "calibration" / "conveyor.json"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scenes")
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), render_scene(4712, i).image)
    return str(folder)


def test_file_and_report(scenes: str, tmp_path: Path) -> None:
    options = Int8Options(images=scenes, n=1, held_out=scenes, report=tmp_path / "r.html", force=True)
    report = quantize_int8_file(bundled_model(), TABLE, tmp_path / "m.onnx", options)
    assert report.verdict is not None
    assert report.verdict.agreement.f1 > 0.9  # three pictures tell a working file from a broken one, no more
    with trt_blendmask.load(tmp_path / "m.onnx") as model:
        assert model.spec.precision == "int8"
    kinds = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert report.made_of.trunk_share > 0.9
    parts = {row["part"]: row for row in json.loads((tmp_path / "r.json").read_text())["parts"]}
    assert parts["predictors"]["int8_share"] == 0
    assert parts["towers"]["int8_share"] == 1
    assert parts["backbone"]["layers"]["FP32"] == 0  # what is not INT8 there is the first convolution, in FP16
    assert report.bytes_after < 0.4 * report.bytes_before


def test_without_held_out_pictures_it_says_so(tmp_path: Path) -> None:
    lines = quantize_int8_file(bundled_model(), TABLE, tmp_path / "m.onnx").lines()
    assert NOT_COMPARED in lines
    assert any("--images" in line for line in lines)


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    values = json.loads(TABLE.read_text())
    values["ranges"]["backbone.res3.0.conv1.relu"] = 4e4
    table = tmp_path / "t.json"
    table.write_text(json.dumps(values))
    report = quantize_int8_file(bundled_model(), table, tmp_path / "m.onnx")
    assert "kept float32: what touches 'backbone.res3.0.conv1.relu', reaches 40000" in report.lines()
    written = onnx.load(tmp_path / "m.onnx")
    typed = onnx.shape_inference.infer_shapes(written, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    assert kinds["backbone.res3.0.conv1.relu"] == onnx.TensorProto.FLOAT
    assert kinds["backbone.res3.1.conv1.relu"] == onnx.TensorProto.FLOAT16
    trt_blendmask.load(tmp_path / "m.onnx").close()


def _one_block(layers: Sequence[Layer], macs: dict[str, int]) -> tuple[Block, ...]:
    return (Block("all", tuple(layer.name for layer in layers), sum(macs[layer.name] for layer in layers)),)


def test_max_drop_leaves_blocks_in_fp16(scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_file, "group_blocks", _one_block)
    monkeypatch.setattr(int8_file, "HELD_OUT", 1)
    monkeypatch.setattr("trt_blendmask.quantize.sensitivity.LEAST_MASK_IOU", 0.9999)  # no block may stay INT8
    options = Int8Options(held_out=scenes, sensitivity=tmp_path / "s.html", max_drop=0.5)
    report = quantize_int8_file(bundled_model(), TABLE, tmp_path / "m.onnx", options)
    found = report.sensitivity
    assert found is not None
    assert found.chosen is not None
    assert found.steps[found.chosen].lost < 1e-9 < found.steps[0].lost
    assert report.verdict is not None
    assert report.verdict.passed
    assert report.made_of.trunk_share == 0
    assert (tmp_path / "s.html").is_file()
    assert json.loads((tmp_path / "s.json").read_text())["chosen"] == found.chosen


def test_a_refused_file_is_not_written(scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_blendmask.quantize.gate.LEAST_F1", 1.01)
    output = tmp_path / "m.onnx"
    arguments = ["quantize", str(bundled_model()), "--precision", "int8", "--from", str(TABLE), "-o", str(output)]
    assert main([*arguments, "--held-out", scenes]) == 65
    assert [path.name for path in tmp_path.iterdir()] == ["m.worst.png"]
    assert main([*arguments, "--held-out", scenes, "--force"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.worst.png"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--precision", "int8"], "trt-blendmask calibrate"),
        (["--precision", "fp16", "--report", "r.html"], "--report is for --precision int8"),
        (["--precision", "int8", "--from", str(TABLE), "--max-drop", "1"], "--held-out"),
        (["--precision", "int8", "--from", str(TABLE), "--max-drop", "-1"], "points from 0 to 100"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", str(bundled_model()), "-o", str(tmp_path / "m.onnx"), *arguments]
    try:
        code = main(command)
    except SystemExit as stop:  # argparse's own
        code = int(str(stop.code))
    assert code == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_outputs_never_replace_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="overwrite"):
        quantize_int8_file(bundled_model(), TABLE, tmp_path / "m.onnx", Int8Options(report=tmp_path / "m.onnx"))
    with pytest.raises(UsageError, match="overwrite"):
        quantize_int8_file(bundled_model(), TABLE, bundled_model())
