"""Masks as polygons."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from trt_blendmask.structures import F32

_STRAIGHT = 0.25  # pixels a point may be off the line of its neighbours and yet be left out


def polygons(outline: Sequence[F32], frame_wh: tuple[int, int]) -> list[list[float]]:
    """The outer contours of an object as COCO has them: [x1, y1, x2, y2, ...] in frame pixels (a whole W x H picture
    is 0, 0 to W, H), none or several, clipped to the frame. Holes are filled: the format has none.

    `outline`: one of `trt_blendmask.runtime.overlay.outlines`.
    """
    limits = np.array(frame_wh, dtype=np.float32)
    rings = (_ring(np.clip(points, 0, limits)) for points in outline if _is_outer(points))
    return [ring for ring in rings if ring]


def _is_outer(points: F32) -> bool:
    """OpenCV walks outer contours and holes in opposite directions."""
    return bool(cv2.contourArea(points, oriented=True) < 0)


def _ring(points: F32) -> list[float]:
    few = cv2.approxPolyDP(points, _STRAIGHT, True)
    return [round(float(v), 2) for v in few.ravel()] if len(few) >= 3 and cv2.contourArea(few) > 0 else []
