"""Box-local mask probabilities to pixels of the frame, one small patch per object.

Bilinear, zeros outside the mask, sampled at pixel centres, foreground where the value is >= 0.5: the rule of
detectron2's `paste_masks_in_image`. Two modes say which box the mask belongs to:

- `exact`: the unclipped box, then the frame crops it. Geometrically right, as the mask was computed on that box.
- `reference`: the box clipped to the frame, so that a mask over the border is squeezed, not cropped. That is what
  AdelaiDet does; use it to compare against it.

Inside the frame the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_blendmask.errors import UsageError
from trt_blendmask.structures import F32, Detections

MODES = ("exact", "reference")
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Patch:
    """The pixels of one object: bool [h, w] `mask` whose top-left pixel is (x, y) of the frame."""

    x: int
    y: int
    mask: Bool


def clip_boxes(xyxy: F32, frame_wh: tuple[int, int]) -> F32:
    """Boxes [n, 4] limited to [0, 0, W, H]; a box wholly outside gets a width or height of 0."""
    limits = np.array([*frame_wh, *frame_wh], dtype=np.float32)
    return np.clip(np.nan_to_num(xyxy), 0, limits).astype(np.float32)


def paste(detections: Detections, mode: str = "exact") -> list[Patch | None]:
    """The pixels of each object, in the order of `detections`.

    None stands for an object whose box has no area inside the frame (AdelaiDet drops those).

    Raises:
        UsageError: `mode` is not one of `MODES`.
    """
    check_mode(mode)
    seen, boxes = visible(detections), boxes_of(detections, mode)
    return [
        paste_one(detections.masks[i], boxes[i], detections.frame_wh) if seen[i] else None
        for i in range(len(detections))
    ]


def check_mode(mode: str) -> None:
    """Refuse another paste than those there are.

    Raises:
        UsageError: `mode` is not one of `MODES`.
    """
    if mode not in MODES:
        raise UsageError(f"Expected a paste of {' or '.join(MODES)}, got '{mode}': --paste {MODES[0]}")


def boxes_of(detections: Detections, mode: str) -> F32:
    """The box that each mask fills, [n, 4]."""
    return detections.xyxy if mode == "exact" else clip_boxes(detections.xyxy, detections.frame_wh)


def visible(detections: Detections) -> Bool:
    """Whether the box of each object has an area inside the frame, bool [n]."""
    clipped = clip_boxes(detections.xyxy, detections.frame_wh)
    return np.logical_and(
        (clipped[:, 2:] > clipped[:, :2]).all(axis=1), np.isfinite(detections.xyxy).all(axis=1), dtype=np.bool_
    )


def paste_one(mask: F32, box: F32, frame_wh: tuple[int, int]) -> Patch:
    """Paste one mask [R, R] into one box (x1, y1, x2, y2 in frame pixels) and crop it to the frame."""
    x1, y1, x2, y2 = box.tolist()
    rows, columns = mask.shape
    x, column, across = _axis(x1, x2, frame_wh[0], columns)
    y, row, down = _axis(y1, y2, frame_wh[1], rows)
    # Bilinear is separable. The columns lie in the first axis, so that the large second step copies whole runs;
    # a + (b - a) * t keeps equal neighbours exactly equal, so that a plain of 0.5 stays foreground.
    field = np.zeros((columns + 2, rows + 2), dtype=np.float32)
    field[1:-1, 1:-1] = mask.T
    narrow = field[:, row] + (field[:, row + 1] - field[:, row]) * down
    low, step = narrow[column], narrow[column + 1]
    step -= low
    step *= across[:, np.newaxis]
    step += low
    return Patch(x, y, (step >= 0.5).T)


def paste_full(detections: Detections, mode: str = "exact") -> Bool:
    """Dense masks bool [n, H, W] (n whole frames of memory: for tests and other libraries)."""
    w, h = detections.frame_wh
    full = np.zeros((len(detections), h, w), dtype=np.bool_)
    for target, patch in zip(full, paste(detections, mode), strict=True):
        if patch is not None:
            rows, columns = patch.mask.shape
            target[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.mask
    return full


def _axis(low: float, high: float, size: int, cells: int) -> tuple[int, npt.NDArray[np.intp], F32]:
    """Where the pixels of one axis sample the mask.

    Returns:
        The first pixel whose centre is in [low, high]; then for it and each further one the index of the cell before
        its centre (counted in the mask with a border of one zero cell) and the share, 0 to 1, of the cell after it.

    Beyond the box the zero border keeps every value under 0.5, so those pixels need not be computed.
    """
    first = int(max(0.0, np.ceil(low - 0.5)))
    last = int(min(float(size), np.floor(high - 0.5) + 1.0))
    centres = np.arange(first, max(first, last)) + 0.5
    position = np.clip((centres - low) / (high - low), 0, 1) * cells + 0.5
    before = np.minimum(position.astype(np.intp), cells)
    return first, before, (position - before).astype(np.float32)
