"""What a user may choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_blendmask.errors import UsageError
from trt_blendmask.export import BlendMaskConfig

CHOICES = {
    "tail": ("native", "plugin", "aot"),
    "top": ("sparse", "dense"),
    "nms": ("matrix", "op"),
    "input_dtype": ("uint8", "float32"),
    "mask_dtype": ("float32", "float16", "uint8"),
}


@dataclass(frozen=True)
class SurgeryOptions:
    """Options of `operate`; None leaves what the model's own configuration says.

    Attributes:
        tail: "native", standard ONNX ops only; "plugin", one node that libtrt_blendmask.so teaches
            TensorRT; "aot", one node whose kernel the engine carries (TensorRT >= 10.9).
        top: "sparse" computes the attention at the kept locations only, "dense" everywhere as in training.
        nms: "matrix" has fixed shapes throughout, "op" is ONNX's NonMaxSuppression; both keep the same detections.
        max_detections: D, detection slots per image, 1 to 1000.
        score_threshold: strict bound on class x centerness, before the square root, in [0, 1).
        nms_threshold: class-wise IoU bound; <= 0: no suppression.
        input_dtype: "uint8" frames or "float32" normalised planes. mask_dtype: "uint8" is round(255 * p).
        config: AdelaiDet YAML, or what `read_config` gives, for a file without our metadata; it wins over metadata.
        split: write the two halves of the file, trunk and tail, beside it.

    Raises:
        UsageError: a choice that does not exist.
    """

    tail: str = "native"
    top: str = "sparse"
    nms: str = "matrix"
    max_detections: int | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    input_dtype: str = "uint8"
    mask_dtype: str = "float32"
    config: Path | BlendMaskConfig | None = None
    split: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                option = {"input_dtype": "input"}.get(name, name).replace("_", "-")
                raise UsageError(f"Expected {' or '.join(allowed)}, got '{value}': pass --{option} {allowed[0]}.")
