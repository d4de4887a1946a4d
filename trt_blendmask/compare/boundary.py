"""How well the outlines of two masks agree: the boundary F-score of DAVIS (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.agreement import area_of, end_of
from trt_blendmask.paste import Patch
from trt_blendmask.structures import U8

REACH = 0.008  # of the frame's diagonal: how far off an outline may be, DAVIS' bound


def boundary_f(one: Patch | None, other: Patch | None, frame_wh: tuple[int, int]) -> float:
    """Harmonic mean of the shares of each outline that lie within `REACH` of the other one; 1 where both are empty.

    The outline of a mask is those of its pixels that have a neighbour outside of it, above, below, left or right; what
    lies beyond the frame is outside.
    """
    if one is None or other is None or not (area_of(one) and area_of(other)):
        return float(area_of(one) == area_of(other))
    reach = math.ceil(REACH * math.hypot(*frame_wh))
    x, y = min(one.x, other.x), min(one.y, other.y)
    x2, y2 = (max(a, b) for a, b in zip(end_of(one), end_of(other), strict=True))
    outlines = [_outline(patch, x, y, (x2 - x, y2 - y)) for patch in (one, other)]
    near = [cv2.distanceTransform(1 - edge, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= reach + 1e-3 for edge in outlines]
    shares = [float(near[1 - k][outlines[k] > 0].mean()) for k in (0, 1)]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def _outline(patch: Patch, x: int, y: int, wh: tuple[int, int]) -> U8:
    """uint8 [h, w]: 1 on the outline of `patch`, in the rectangle at (x, y)."""
    padded: npt.NDArray[np.bool_] = np.pad(patch.mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    field = np.zeros((wh[1], wh[0]), dtype=np.uint8)
    rows, columns = patch.mask.shape
    field[patch.y - y : patch.y - y + rows, patch.x - x : patch.x - x + columns] = patch.mask & ~inner
    return field
