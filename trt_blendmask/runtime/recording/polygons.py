"""Masks as polygons."""

from __future__ import annotations

import cv2
import numpy as np

from trt_blendmask.paste import clip_boxes
from trt_blendmask.runtime.overlay import contours
from trt_blendmask.structures import F32, Detections

_STRAIGHT = 0.25  # pixels a point may be off the line of its neighbours and yet be left out


def polygons(detections: Detections, paste: str = "exact") -> list[list[list[float]]]:
    """The outer contours of each object as COCO has them: [x1, y1, x2, y2, ...] in frame pixels (a whole W x H picture
    is 0, 0 to W, H), none or several per object, clipped to the frame. Holes are filled: the format has none.

    `paste` as in `trt_blendmask.paste`.
    """
    boxes = detections.xyxy if paste == "exact" else clip_boxes(detections.xyxy, detections.frame_wh)
    limits = np.array(detections.frame_wh, dtype=np.float32)
    return [
        [ring for points in contours(mask, box) if _is_outer(points) and (ring := _ring(np.clip(points, 0, limits)))]
        for mask, box in zip(detections.masks, boxes, strict=True)
    ]


def _is_outer(points: F32) -> bool:
    """OpenCV walks outer contours and holes in opposite directions."""
    return bool(cv2.contourArea(points, oriented=True) < 0)


def _ring(points: F32) -> list[float]:
    few = cv2.approxPolyDP(points, _STRAIGHT, True)
    return [round(float(v), 2) for v in few.ravel()] if len(few) >= 3 and cv2.contourArea(few) > 0 else []
