"""TensorRT-RTX builds the FP16 and INT8 files, and the INT8 convolutions are INT8 in its engine.

Ranges do not matter for that: every activation gets the same; nor does the size of the input. `pytest -s`
prints seconds and shares.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks.raw_head import write_drawn
from trt_blendmask import bundled_model
from trt_blendmask.quantize.fp16 import type_half
from trt_blendmask.quantize.int8 import quantize_int8
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.structures import CalibrationTable
from trt_blendmask.surgery import SurgeryOptions, operate

BUILD = Path(__file__).with_name("build_engine.py")
NETWORKS = ("bundled", "550_R_50_3x", "RT_R_50_4x_bn-head_syncbn_shtw", "DLA_34_syncbn_4x")


@pytest.fixture(scope="module", params=NETWORKS)
def deployable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "bundled":
        return bundled_model()
    folder = tmp_path_factory.mktemp(request.param)
    write_drawn(request.param, (256, 320), folder / "raw.onnx")
    operate(folder / "raw.onnx", folder / "model.onnx", SurgeryOptions(max_detections=12))
    return folder / "model.onnx"


def test_fp16(deployable: Path, tmp_path: Path) -> None:
    model = onnx.load(deployable)
    type_half(model)
    engine = build(model, tmp_path / "model.fp16.onnx")
    assert {row[1] for row in engine["parsed"].values()} == {"HALF"}
    assert set(engine["built"].values()) == {"Half"}


def test_int8(deployable: Path, tmp_path: Path) -> None:
    model = onnx.load(deployable)
    plan = read_plan(model)
    table = CalibrationTable("0" * 64, "mse", dict.fromkeys(plan.tensors, 4.0), (), {})
    quantised = quantize_int8(model, table)
    type_half(quantised)
    engine = build(quantised, tmp_path / "model.int8.onnx")
    layers = {layer.name for layer in plan.layers}
    macs = {name: row[0] for name, row in engine["parsed"].items()}
    share = sum(macs[name] for name in layers) / sum(macs.values())
    print(f"INT8 share of the trunk's multiply-adds: {share:.1%}")
    assert share >= 0.9
    assert {name: tuple(row[1:]) for name, row in engine["parsed"].items()} == {
        name: ("INT8", "INT8") if name in layers else ("HALF",) for name in macs
    }
    assert engine["built"] == {name: "Int8" if name in layers else "Half" for name in macs}


def build(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    onnx.save(model, path)
    done = subprocess.run(
        [sys.executable, str(BUILD), str(path), "--layers"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["bytes"] > 0, (result.get("errors"), done.stderr[-2000:])
    print(f"\n{path.name}: {path.stat().st_size / 1e6:.1f} MB, built in {result['seconds']:.1f} s")
    return result
