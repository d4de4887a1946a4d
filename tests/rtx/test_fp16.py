"""TensorRT-RTX builds the FP16 files of the bundled and of published networks, strongly typed.

The input is small, as types do not depend on it. What each build took is printed (pytest -s).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.raw_head import write_drawn
from trt_blendmask.bundled import bundled_model
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.surgery import operate

BUILD = Path(__file__).with_name("build_engine.py")
PRESETS = ("RT_R_50_4x_bn-head_syncbn_shtw", "R_101_dcni3_5x")  # without and with group norm; deformable
ENDS = {"images": "UINT8", "count": "INT32", "boxes": "FLOAT", "scores": "FLOAT", "classes": "INT32", "masks": "FLOAT"}


def engine(model: Path, folder: Path) -> dict[str, Any]:
    half = folder / "half.onnx"
    report = quantize_fp16(model, half)
    done = subprocess.run(
        [sys.executable, str(BUILD), str(half), "--types"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    built: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert built["bytes"] > 0, (built.get("errors"), done.stderr[-2000:])
    print(f"built in {built['seconds']:.1f} s, {built['bytes'] / 1e6:.1f} MB, {report.typing.casts}")
    layers = built["layers"]
    assert built["tensors"] == ENDS
    for kind in ("CONVOLUTION", "MATRIX_MULTIPLY", "NORMALIZATION", "POOLING", "RESIZE"):
        assert layers.get(f"{kind} FLOAT", 0) == 0, kind
    for kind in ("TOPK", "GRID_SAMPLE"):
        assert layers.get(f"{kind} HALF", 0) == 0, kind
    return dict(layers)


def test_bundled(tmp_path: Path) -> None:
    assert engine(bundled_model(), tmp_path)["CONVOLUTION HALF"] > 50


@pytest.mark.parametrize("preset", PRESETS)
def test_published(tmp_path: Path, preset: str) -> None:
    write_drawn(preset, (256, 320), tmp_path / "raw.onnx")
    operate(tmp_path / "raw.onnx", tmp_path / "model.onnx")
    layers = engine(tmp_path / "model.onnx", tmp_path)
    assert ("NORMALIZATION HALF" in layers) == ("bn-head" not in preset)
    assert ("GRID_SAMPLE FLOAT" in layers) == ("dcn" in preset)
