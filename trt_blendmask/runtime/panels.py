"""Several pictures of one scene beside each other, each with a title, and masks painted in one colour."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import cv2
import numpy as np

from trt_blendmask.paste import Patch
from trt_blendmask.runtime.labels import Colour
from trt_blendmask.structures import U8

_GAP = 4  # pixels between two pictures
_MOST_WIDE, _MOST_HIGH = 1600, 3200


def beside(panels: Sequence[tuple[str, U8]]) -> U8:
    """Titles and pictures (uint8 [H, W, 3] BGR, all of one height) from left to right."""
    columns: list[U8] = []
    for title, image in panels:
        size = max(0.45, image.shape[1] / 1000)
        bar = np.full((round(40 * size), image.shape[1], 3), 32, dtype=np.uint8)
        at, white, thickness = (round(10 * size), round(27 * size)), (255, 255, 255), max(1, round(1.6 * size))
        cv2.putText(bar, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, white, thickness, cv2.LINE_AA)
        column = np.concatenate([bar, image])
        columns += [np.full((column.shape[0], _GAP, 3), 32, dtype=np.uint8), column]
    return np.concatenate(columns[1:], axis=1)


def paint(image: U8, patches: Iterable[Patch | None], colour: Colour, opacity: float = 0.6) -> None:
    """Colour the pixels of `patches` in `image`, in place."""
    for patch in patches:
        if patch is not None:
            rows, columns = patch.mask.shape
            crop = image[patch.y : patch.y + rows, patch.x : patch.x + columns]
            mixed = (1 - opacity) * crop[patch.mask] + opacity * np.array(colour, dtype=np.float32)
            crop[patch.mask] = np.rint(mixed).astype(np.uint8)


def figure(image: U8, caption: str) -> str:
    """The picture, at most 1600 pixels wide and 3200 high, as HTML that needs no other file."""
    height, width = image.shape[:2]
    scale = min(_MOST_WIDE / width, _MOST_HIGH / height)
    if scale < 1:
        wh = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, wh), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    words, data = escape(caption), base64.b64encode(encoded).decode("ascii")
    return f'<figure><img src="data:image/jpeg;base64,{data}" alt="{words}"><figcaption>{words}</figcaption></figure>'
