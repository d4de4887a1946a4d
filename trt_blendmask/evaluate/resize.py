"""AdelaiDet's resize rule, for parity with published numbers: short side to 800, long one at most 1333.

The rule gives each picture a size of its own; the network has one. So the picture lies at the top left of the network's
input, which must be large enough, and the rest is padding, as AdelaiDet's batches have it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trt_blendmask.errors import UsageError
from trt_blendmask.structures import F32, U8, Detections, ModelSpec


@dataclass(frozen=True)
class ShortestEdge:
    """Scale so that the short side becomes `short` pixels, or less where the long one would exceed `long`."""

    short: int = 800
    long: int = 1333

    def scaled_wh(self, wh: tuple[int, int]) -> tuple[int, int]:
        """Size of a picture of `wh` after scaling, each side rounded on its own.

        Halves fall as in detectron2, which scales twice: first to the short side, then what came of it to the long one.
        """
        scale = self.short / min(wh)
        longer = max(wh) * scale
        again = self.long / longer if longer > self.long else 1.0
        width, height = (max(1, int((self.short if side == min(wh) else side * scale) * again + 0.5)) for side in wh)
        return width, height

    def check(self, sizes: set[tuple[int, int]], spec: ModelSpec, name: str) -> None:
        """Refuse a model into whose input pictures of `sizes` (width, height) do not fit.

        Raises:
            UsageError: there is one.
        """
        scaled = [self.scaled_wh(wh) for wh in sizes]
        width, height = (max((wh[axis] for wh in scaled), default=0) for axis in (0, 1))
        if height > spec.input_hw[0] or width > spec.input_hw[1]:
            least = "x".join(str(-(-side // 32) * 32) for side in (height, width))
            raise UsageError(
                f"Expected an input of at least {height} x {width} for --resize {self.short},{self.long} and these "
                f"pictures, but '{name}' takes {spec.input_hw[0]} x {spec.input_hw[1]}. Export it with "
                f"--input-size {least}, or leave --resize out."
            )

    def place(self, image: U8, spec: ModelSpec) -> U8:
        """`image` (uint8 [H, W, 3] BGR) scaled, in a frame of the network's input size; the rest is the mean colour."""
        width, height = self.scaled_wh((image.shape[1], image.shape[0]))
        frame = np.empty((*spec.input_hw, 3), dtype=np.uint8)
        frame[:] = np.rint(np.array(spec.pixel_mean)).astype(np.uint8)
        frame[:height, :width] = resize_averaging(image, (width, height))
        return frame

    def back(self, found: Detections, frame_wh: tuple[int, int]) -> Detections:
        """Detections in what `place` made, in pixels of the picture of `frame_wh`."""
        factors = np.array([s / w for s, w in zip(self.scaled_wh(frame_wh), frame_wh, strict=True)] * 2, np.float32)
        return replace(found, xyxy=(found.xyxy / factors).astype(np.float32), frame_wh=frame_wh)


def resize_averaging(image: U8, wh: tuple[int, int]) -> U8:
    """Bilinear, averaging over the pixels that fall into one where it shrinks, as Pillow does: rows, then columns.

    Equals Pillow's BILINEAR but for single grey levels.
    """
    across = _weights(image.shape[1], wh[0])
    down = _weights(image.shape[0], wh[1])
    narrow = np.einsum("hwc,vw->hvc", image.astype(np.float32), across, optimize=True)
    narrow = np.floor(narrow.clip(0, 255) + np.float32(0.5))  # Pillow keeps whole grey levels between the two
    both = np.einsum("hvc,uh->uvc", narrow, down, optimize=True)
    return np.asarray(np.floor(both.clip(0, 255) + np.float32(0.5)), dtype=np.uint8)


def _weights(before: int, after: int) -> F32:
    """float32 [after, before]: triangles as wide as one new pixel or one old one, whichever is more."""
    scale = before / after
    reach = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    away = np.abs(np.arange(before)[None] + 0.5 - centres[:, None]) / reach
    weights = np.clip(1 - away, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
