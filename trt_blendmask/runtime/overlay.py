"""Masks, outlines and labels drawn onto a frame, each within its own box.

The outline is the 0.5 contour of the R x R mask itself, traced with sub-cell precision and carried to frame pixels:
it is smooth at any size, and no mask is pasted to draw it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.coco import class_name
from trt_blendmask.errors import UsageError
from trt_blendmask.paste import boxes_of, check_mode, clip_boxes, visible
from trt_blendmask.runtime.labels import Colour, LabelLayer
from trt_blendmask.structures import F32, U8, Detections

FILL = 0.5  # opacity of a mask where nobody wants another
_SHIFT = 4  # fractional bits of the points that OpenCV draws
_STRAIGHT = 0.3  # pixels a point may be off the line of its neighbours and yet be left out: drawing time is per point
_MAX_CELLS = 4  # the mask is enlarged at most so much before its contour is traced
Points = npt.NDArray[np.int32]

# Told apart from each other and from grey metal, neighbours far apart in hue; written as RGB.
_PALETTE = (
    "ff3b5c 1e9bff ffb800 22c55e b14dff 00cfd1 ff7a1a ff5fd2 9be000 4f5dff 00a37a ffe14d c2185b 7dd3fc b8743a c9a7ff"
)
PALETTE: tuple[Colour, ...] = tuple((int(h[4:], 16), int(h[2:4], 16), int(h[:2], 16)) for h in _PALETTE.split())


def outlines(detections: Detections, paste: str = "exact") -> list[list[F32]]:
    """The `contours` of each mask in its frame, none of an object that has no area in there.

    Args:
        paste: "exact" or "reference": which box a mask fills, as in `trt_blendmask.paste`.
    """
    seen, boxes = visible(detections), boxes_of(detections, paste)
    return [contours(detections.masks[i], boxes[i]) if seen[i] else [] for i in range(len(detections))]


def draw(
    image: U8,
    detections: Detections,
    outlined: Sequence[Sequence[F32]] | None = None,
    colour_by: str = "class",
    labels: bool = True,
    opacity: float = FILL,
) -> None:
    """Draw onto `image` (uint8 [H, W, 3] BGR) in place.

    Args:
        detections: of this frame.
        outlined: the `outlines` of their masks, where the caller has them.
        colour_by: "class" (the same colour in every frame) or "instance" (by the number of its track; by rank within
            the frame where there are no tracks).
        labels: write class names and scores.
        opacity: of the masks, 0 (outlines alone) to 1.
    """
    height, width = image.shape[:2]
    outlined = outlines(detections) if outlined is None else outlined
    clipped = clip_boxes(detections.xyxy, (width, height))
    areas = (clipped[:, 2:] - clipped[:, :2]).prod(axis=1)
    tracks = detections.track_ids
    keys = detections.classes if colour_by == "class" else np.arange(len(detections)) if tracks is None else tracks
    colours = [colour_of(int(key)) for key in keys]
    thickness = max(1, round(height / 480))
    for i in np.argsort(-areas, kind="stable"):  # the small ones last, so that they stay visible
        if areas[i] > 0:
            _draw_mask(image, outlined[i], clipped[i], colours[i], thickness, opacity)
    if labels:
        layer = LabelLayer(image)
        for i in range(len(detections)):  # the best first: it gets the best place
            if areas[i] > 0:
                name = class_name(detections, int(detections.classes[i]))
                number = "" if tracks is None or tracks[i] < 0 else f"#{tracks[i]} "
                layer.add(f"{number}{name} {detections.scores[i]:.2f}", clipped[i], colours[i])


def check_choices(paste: str, colour_by: str) -> None:
    """Refuse other ways to draw than `draw` knows, before any work.

    Raises:
        UsageError: there is one.
    """
    check_mode(paste)
    if colour_by not in ("class", "instance"):
        raise UsageError(f"Expected colours by class or instance, got '{colour_by}': --colour-by class")


def colour_of(key: int) -> Colour:
    """BGR colour of a class or instance; beyond the palette the hues go on by the golden angle."""
    if 0 <= key < len(PALETTE):
        return PALETTE[key]
    hue, value = key * 137.508 % 360 / 2, 255 if key % 2 else 190
    b, g, r = cv2.cvtColor(np.array([[[hue, 205, value]]], dtype=np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return b, g, r


def contours(mask: F32, box: F32) -> list[F32]:
    """Closed 0.5 contours of `mask` [R, R] in `box` (x1, y1, x2, y2), holes included: float32 [points, 2] (x, y)."""
    x1, y1, x2, y2 = box.tolist()
    cells = mask.shape[0]
    zoom = int(min(max(np.ceil(max(x2 - x1, y2 - y1) / cells), 1), _MAX_CELLS))
    field = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0.0)  # zeros, as the paste has outside
    if zoom > 1:
        field = cv2.resize(field, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    inside = (field >= 0.5).astype(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    scale = np.array([x2 - x1, y2 - y1], dtype=np.float32) / cells
    step = max(1, int(zoom / max(float(scale.max()), 1e-6)))  # points nearer than a pixel add nothing
    origin = np.array([x1, y1], dtype=np.float32)
    result = []
    for pixels in found:
        if len(pixels) >= 4:
            points = _on_contour(field, pixels[::step, 0])
            result.append(((points + 0.5) / zoom - 1) * scale + origin)
    return result


def _on_contour(field: npt.NDArray[np.float32], pixels: Points) -> F32:
    """Move border pixels onto the 0.5 contour: one Newton step along the gradient, of at most one pixel."""
    x, y = pixels[:, 0], pixels[:, 1]
    dx = (field[y, x + 1] - field[y, x - 1]) / 2
    dy = (field[y + 1, x] - field[y - 1, x]) / 2
    slope = np.sqrt(dx * dx + dy * dy) + np.float32(1e-6)
    step = np.clip((0.5 - field[y, x]) / slope, -1, 1) / slope
    return np.stack([x + step * dx, y + step * dy], axis=1).astype(np.float32)


def _draw_mask(image: U8, outline: Sequence[F32], clipped: F32, colour: Colour, thickness: int, opacity: float) -> None:
    margin = thickness + 1
    height, width = image.shape[:2]
    left, top = (max(0, int(v) - margin) for v in clipped[:2])
    right, bottom = min(width, int(clipped[2]) + 1 + margin), min(height, int(clipped[3]) + 1 + margin)
    crop = image[top:bottom, left:right]
    corner = np.array([left + 0.5, top + 0.5], dtype=np.float32)  # OpenCV's pixel 0 has its centre at 0
    reach = np.array([right - left + 64, bottom - top + 64], dtype=np.float32)
    fixed = (np.rint(np.clip(p - corner, -64, reach) * (1 << _SHIFT)).astype(np.int32) for p in outline)
    polygons = [cv2.approxPolyDP(points, _STRAIGHT * (1 << _SHIFT), True) for points in fixed]
    if not polygons:
        return
    layer = crop.copy()
    cv2.fillPoly(layer, polygons, colour, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(layer, opacity, crop, 1 - opacity, 0, dst=crop)
    cv2.polylines(crop, polygons, True, colour, thickness, cv2.LINE_AA, _SHIFT)
