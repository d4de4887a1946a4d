"""TensorRT-RTX parses and builds the deployable graph of every kind of network, without a GPU.

`make test-rtx` runs these; `make test` does not, as the wheel is large. Where it is missing they fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.raw_head import write_drawn
from trt_blendmask.export import export_onnx
from trt_blendmask.surgery import SurgeryOptions, operate

BUILD = Path(__file__).with_name("build_engine.py")
SLOTS = 12


def engine(model: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(BUILD), str(model)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["bytes"] > 0, (result.get("errors"), done.stderr[-2000:])
    return result


def expected(batch: int, mask: str = "FLOAT") -> dict[str, Any]:
    return {
        "images": ["UINT8", [batch, 128, 160, 3]],
        "count": ["INT32", [batch]],
        "boxes": ["FLOAT", [batch, SLOTS, 4]],
        "scores": ["FLOAT", [batch, SLOTS]],
        "classes": ["INT32", [batch, SLOTS]],
        "masks": [mask, [batch, SLOTS, 56, 56]],
    }


def raw_of(reference: Path, name: str, folder: Path, batch: int = 1) -> Path:
    source = reference / "end_to_end" / name
    export_onnx(source / "model_plain.pth", source / "config_full.yaml", folder / "raw.onnx", (128, 160), batch)
    return folder / "raw.onnx"


@pytest.mark.parametrize("name", ["550_r50", "rt_r50", "dla34_small"])
def test_each_family(reference: Path, tmp_path: Path, name: str) -> None:
    raw = raw_of(reference, name, tmp_path)
    report = operate(raw, tmp_path / "model.onnx", SurgeryOptions(max_detections=SLOTS))
    wanted = expected(1)
    wanted["masks"][1][2:] = [report.spec.mask_size] * 2
    assert engine(tmp_path / "model.onnx")["tensors"] == wanted


@pytest.mark.parametrize(
    "options",
    [
        {"top": "dense"},
        {"mask_dtype": "uint8"},
        {"mask_dtype": "float16"},
        {"nms_threshold": 0.0},
    ],
    ids=str,
)
def test_each_option(reference: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    raw = raw_of(reference, "rt_r50", tmp_path, 2)
    operate(raw, tmp_path / "model.onnx", SurgeryOptions(max_detections=SLOTS, **options))
    mask = {"uint8": "UINT8", "float16": "HALF"}.get(options.get("mask_dtype", ""), "FLOAT")
    assert engine(tmp_path / "model.onnx")["tensors"] == expected(2, mask)


def test_all_hundred_steps_of_suppression(reference: Path, tmp_path: Path) -> None:
    operate(raw_of(reference, "rt_r50", tmp_path), tmp_path / "model.onnx")
    assert engine(tmp_path / "model.onnx")["tensors"]["boxes"] == ["FLOAT", [1, 100, 4]]


def test_adelaidets_own_file(reference: Path, tmp_path: Path) -> None:
    config = reference / "end_to_end" / "550_r50" / "config_full.yaml"
    options = SurgeryOptions(max_detections=SLOTS, config=config)
    operate(reference / "onnx" / "550_r50_legacy.onnx", tmp_path / "model.onnx", options)
    assert engine(tmp_path / "model.onnx")["tensors"] == expected(1)


@pytest.mark.parametrize("preset", ["R_101_dcni3_5x", "RT_R_50_4x_bn-head_syncbn_shtw", "DLA_34_syncbn_4x"])
def test_published_networks_at_their_own_width(tmp_path: Path, preset: str) -> None:
    """Deformable convolutions among them; the input is small, as only sizes of tensors depend on it."""
    write_drawn(preset, (128, 160), tmp_path / "raw.onnx")
    operate(tmp_path / "raw.onnx", tmp_path / "model.onnx", SurgeryOptions(max_detections=SLOTS))
    assert engine(tmp_path / "model.onnx")["tensors"] == expected(1)
