"""The bundled model with ONNX's own suppression: the same detections, and it loads in a fifth of the time."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.export import export_onnx
from trt_blendmask.surgery import SurgeryOptions, operate

_FOLDER = tempfile.TemporaryDirectory()  # removed when the process ends


@lru_cache(maxsize=8)
def quick_model(input_hw: tuple[int, int] | None = None, batch: int = 1) -> Path:
    """Its file, made at the first call."""
    path = Path(_FOLDER.name) / f"quick{input_hw[0] if input_hw else ''}x{batch}.onnx"
    raw = export_onnx(CHECKPOINT, CONFIG, path.with_suffix(".raw.onnx"), input_hw=input_hw, batch=batch).output
    operate(raw, path, SurgeryOptions(nms="op"))
    return path
