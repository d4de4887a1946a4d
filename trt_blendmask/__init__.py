"""BlendMask instance segmentation (arXiv 2001.00309) from a trained checkpoint to masks on a video.

    import trt_blendmask
    model = trt_blendmask.load(trt_blendmask.bundled_model())
    for frame, detections in model.stream("synthetic:conveyor?seconds=2"):
        print(frame.index, len(detections))

Importing this package imports nothing heavy: what is named here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trt_blendmask.bundled import bundled_model as bundled_model
    from trt_blendmask.runtime.choice import GpuOptions as GpuOptions
    from trt_blendmask.runtime.model import Model as Model
    from trt_blendmask.runtime.model import load as load
    from trt_blendmask.structures import Detections as Detections
    from trt_blendmask.structures import Frame as Frame

__version__ = "0.1.0"

# ONNX Runtime >= 1.29 sends usage data from Linux too, and leaves a database in the user's cache; its users may ask for
# that, ours have not. It must be said before the library is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "bundled_model": "trt_blendmask.bundled",
    "load": "trt_blendmask.runtime.model",
    "GpuOptions": "trt_blendmask.runtime.choice",
    "Model": "trt_blendmask.runtime.model",
    "Detections": "trt_blendmask.structures",
    "Frame": "trt_blendmask.structures",
}

__all__ = ["Detections", "Frame", "GpuOptions", "Model", "__version__", "bundled_model", "load"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
