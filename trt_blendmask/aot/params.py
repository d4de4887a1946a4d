"""What one RoiAlignBlend is compiled for, and what the kernel can do: `RoiAlignBlendParams` and `check` of
plugins/roi_align_blend_kernel.{h,cu} in Python, for machines without a C++ compiler. The tests hold the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trt_blendmask.errors import DataError

MOST_THREADS = 256  # of a block
BYTES = {"float32": 4, "float16": 2}  # element types, in the order of ElementType


@dataclass(frozen=True)
class BlendParams:
    """All shapes and attributes of one call; the kernel has them as constants.

    Attributes:
        num_bases: K. bases_h, bases_w: Hb, Wb. mask_size: R. attention_size: M.
        spatial_scale: bases pixels per input pixel. sampling_ratio: RoIAlign samples per cell and axis, 1 or 2.
        aligned: ROIAlignV2's half pixel. attention_interpolation: "bilinear", "nearest". activation: "sigmoid", "none".
        batch: N. detections: D.
        bases_type, attention_type, masks_type: "float32" or "float16".
        pixel_channels: slots per pixel where the bases lie pixel by pixel (K or more); 0 where plane by plane.

    Raises:
        DataError: what the kernel cannot do.
    """

    num_bases: int
    bases_h: int
    bases_w: int
    mask_size: int
    attention_size: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool
    attention_interpolation: str
    activation: str
    batch: int
    detections: int
    bases_type: str
    attention_type: str
    masks_type: str
    pixel_channels: int = 0

    def __post_init__(self) -> None:
        for name, value, least, most in self._limits():
            if not least <= value <= most:
                raise DataError(f"RoiAlignBlend's {name} is {value}, expected {least} to {most}: pass --tail native.")
        if not (self.spatial_scale > 0 and math.isfinite(self.spatial_scale)):
            raise DataError(f"RoiAlignBlend's spatial_scale is {self.spatial_scale:g}, expected a positive number.")
        words = (self.attention_interpolation, self.activation, self.bases_type, self.attention_type, self.masks_type)
        allowed = (("bilinear", "nearest"), ("sigmoid", "none"), *[tuple(BYTES)] * 3)
        for word, expected in zip(words, allowed, strict=True):
            if word not in expected:
                raise DataError(f"RoiAlignBlend got '{word}', expected {' or '.join(expected)}: pass --tail native.")

    def _limits(self) -> tuple[tuple[str, int, int, int], ...]:
        channels = self.pixel_channels or self.num_bases
        return (
            ("num_bases", self.num_bases, 1, 1024),
            ("height of the bases", self.bases_h, 1, 1 << 15),
            ("width of the bases", self.bases_w, 1, 1 << 15),
            ("mask_size", self.mask_size, 1, MOST_THREADS),
            ("attention_size", self.attention_size, 1, 256),
            ("sampling_ratio", self.sampling_ratio, 1, 2),
            ("batch", self.batch, 1, 65535),
            ("detections", self.detections, 1, 65535),
            ("channels of a pixel", channels, self.num_bases, 1 << 15),
            ("size of an image's bases", self.bases_h * self.bases_w * channels, 1, (1 << 31) - 1),
        )
