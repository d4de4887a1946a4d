"""Labels: text on a chip of the object's colour, readable at any resolution, placed so that few hide each other."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.structures import F32, U8

Colour = tuple[int, int, int]
Rect = tuple[int, int, int, int]  # x, y, width, height
_SHARP = 4  # text is drawn so much larger and averaged down: thin strokes stay even at small sizes
_MAX_HIDDEN = 0.25  # a label that would hide more than this share of another is left out


class LabelLayer:
    """Places labels on one frame; earlier labels keep their place."""

    def __init__(self, image: U8) -> None:
        self._image = image
        self._placed: list[Rect] = []
        self._text_height = int(min(max(round(image.shape[0] * 0.013) + 5, 8), 40))

    def add(self, text: str, box: F32, colour: Colour) -> None:
        """Write `text` at the best free place around `box` (clipped to the frame), or not at all in a crowd."""
        ink = _text(text, self._text_height)
        pad = max(2, self._text_height // 4)
        width, height = ink.shape[1] + 2 * pad, ink.shape[0] + 2 * pad
        frame_h, frame_w = self._image.shape[:2]
        if width > frame_w or height > frame_h:
            return
        x1, y1, x2, y2 = (round(v) for v in box.tolist())
        own = (x1, y1, max(1, x2 - x1), max(1, y2 - y1))
        above, below = y1 - height, y2
        best, best_cost = own, 2 * _MAX_HIDDEN
        for x, y in ((x1, above), (x1, below), (x2, y1), (x1 - width, y1), (x1, y1), (x2 - width, above)):
            rect = (min(max(x, 0), frame_w - width), min(max(y, 0), frame_h - height), width, height)
            hidden = max((_hidden_share(rect, other) for other in self._placed), default=0.0)
            cost = hidden + 0.2 * _hidden_share(rect, own)  # hiding one's own object is bad, another label is worse
            if hidden <= _MAX_HIDDEN and cost < best_cost:
                best, best_cost = rect, cost
            if cost < 0.02:
                break
        if best is not own:
            self._placed.append(best)
            _draw_chip(self._image, best, ink, pad, colour)


def _hidden_share(a: Rect, b: Rect) -> float:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, across) * max(0, down) / (b[2] * b[3])


def _draw_chip(image: U8, rect: Rect, ink: npt.NDArray[np.float32], pad: int, colour: Colour) -> None:
    x, y, width, height = rect
    chip = image[y : y + height, x : x + width]
    dark = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140
    text_colour = np.float32(20) if dark else np.float32(255)
    shape = _chip(width, height)
    ground = chip * (1 - shape) + np.array(colour, dtype=np.float32) * shape
    inner = ground[pad : height - pad, pad : width - pad]
    inner += ink * (text_colour - inner)
    chip[:] = np.rint(ground)


@lru_cache(maxsize=256)
def _chip(width: int, height: int) -> npt.NDArray[np.float32]:
    """Coverage [height, width, 1] of a rectangle with rounded corners."""
    radius = height * _SHARP // 5
    big_w, big_h = width * _SHARP - 1, height * _SHARP - 1
    big = np.zeros((big_h + 1, big_w + 1), dtype=np.uint8)
    cv2.rectangle(big, (radius, 0), (big_w - radius, big_h), 255, -1)
    cv2.rectangle(big, (0, radius), (big_w, big_h - radius), 255, -1)
    for x in (radius, big_w - radius):
        for y in (radius, big_h - radius):
            cv2.circle(big, (x, y), radius, 255, -1)
    small = cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32)[..., np.newaxis] * np.float32(0.92 / 255)


@lru_cache(maxsize=1024)
def _text(text: str, height: int) -> npt.NDArray[np.float32]:
    """Coverage [rows, columns, 1] of `text`, `height` pixels from the top of a capital to the foot of a g."""
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(height * _SHARP / 13))
    (_, unit), below = cv2.getTextSize("Hg", font, 1.0, 1)
    scale = height * _SHARP / (unit + below)
    (columns, rows), below = cv2.getTextSize(text, font, scale, thickness)
    big = np.zeros((height * _SHARP, columns + 2 * thickness), dtype=np.uint8)
    cv2.putText(big, text, (thickness, rows), font, scale, 255, thickness, cv2.LINE_AA)
    small = cv2.resize(big, (max(1, big.shape[1] // _SHARP), height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32)[..., np.newaxis] / np.float32(255)
