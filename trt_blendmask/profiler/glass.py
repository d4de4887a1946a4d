"""Glass to glass: a camera that paints the time into its pictures, and a sink that reads it back from what is shown.

The code is a strip of large black and white cells along the upper edge, which JPEG, H.264 and scaling leave alone. It
is there four times: one is enough where a label covers the others. The network is to look below it (`below`), or it
finds bolts and nuts in there.

    W . . . . . . . . B     the outer columns are white and black in turn: they tell where white ends and black begins
    B . . . . . . . . W     32 bits between them: 20 of time, 12 that check them
    W . . . . . . . . B
    B . . . . . . . . W
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.errors import DataError
from trt_blendmask.runtime.preview.pictures import QUALITY, WIDEST, encode
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.structures import U8

STEP_S = 1e-4
PERIOD_S = STEP_S * 2**20  # 105 s; older pictures look younger
LEAST_WIDTH = 160  # pixels, or a cell has less than 4
_COLUMNS, _ROWS, _COPIES = 10, 4, 4  # cells of the code; codes side by side
_ACROSS = _COLUMNS * _COPIES  # cells of the frame's whole width
_BLACK, _WHITE, _LEAST_CONTRAST = 16, 235, 40
_EDGES = np.indices((_ROWS, _COLUMNS)).sum(axis=0)[:, [0, -1]] % 2 == 0  # bool [4, 2]: the white cells of both columns


def paint(image: U8, at_s: float) -> None:
    """Paint the time `at_s` (`time.monotonic`) into `image`, uint8 [H, W, 3], in place.

    Raises:
        DataError: too small, see `has_room`.
    """
    height, width = image.shape[:2]
    if not has_room(image):
        raise DataError(
            f"Expected a picture of {LEAST_WIDTH} pixels or wider for a time code, and not flatter than 6 : 1, "
            f"got {width} x {height}."
        )
    ticks = round(at_s / STEP_S) % 2**20
    bits = np.array([(ticks << 12 | _check(ticks)) >> k & 1 for k in range(31, -1, -1)], dtype=bool)
    code = np.concatenate([_EDGES[:, :1], bits.reshape(_ROWS, -1), _EDGES[:, 1:]], axis=1)
    cells = np.tile(code, _COPIES)
    for row, column in np.ndindex(cells.shape):
        top, bottom, left, right = (round(k * width / _ACROSS) for k in (row, row + 1, column, column + 1))
        image[top:bottom, left:right] = _WHITE if cells[row, column] else _BLACK


def has_room(image: U8) -> bool:
    """Whether `paint` can paint into uint8 [H, W, 3]: it is wide enough, and something is left for the network."""
    height, width = image.shape[:2]
    return bool(width >= LEAST_WIDTH and below((width, height))[3] > 0)


def read(image: U8) -> float | None:
    """The time in `image`, seconds from 0 to `PERIOD_S`; None where there is none, or something covers it."""
    found = (_decoded(code) for code in np.split(_cells(image), _COPIES, axis=1))
    return next((seconds for seconds in found if seconds is not None), None)


def below(frame_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a frame without the code, and without labels that reach into it: x, y, width, height."""
    width, height = frame_wh
    top = round(1.5 * _ROWS * width / _ACROSS)
    return 0, top, width, height - top


def _decoded(grey: npt.NDArray[np.float64]) -> float | None:
    edges = grey[:, [0, -1]]
    white, black = edges[_EDGES], edges[~_EDGES]
    if white.min() - black.max() < _LEAST_CONTRAST:
        return None
    number = 0
    for bit in (grey[:, 1:-1] > (white.mean() + black.mean()) / 2).flat:
        number = number << 1 | int(bit)
    ticks = number >> 12
    return ticks * STEP_S if number & 0xFFF == _check(ticks) else None


def age_s(image: U8, now_s: float) -> float | None:
    """How long ago, before `now_s`, the time was painted into `image`; None where it cannot be read."""
    painted_s = read(image)
    if painted_s is None:
        return None
    return max(0.0, (now_s - painted_s + STEP_S) % PERIOD_S - STEP_S)  # painted up to half a step ahead, as rounded


def _check(ticks: int) -> int:
    return zlib.crc32(ticks.to_bytes(4, "little")) & 0xFFF


def _cells(image: U8) -> npt.NDArray[np.float64]:
    """Mean brightness float64 [4, 40] of the inner halves of the cells."""
    step = image.shape[1] / _ACROSS
    means = np.zeros((_ROWS, _ACROSS))
    for row, column in np.ndindex(means.shape):
        top, left = int((row + 0.25) * step + 0.5), int((column + 0.25) * step + 0.5)
        side = max(1, int(step / 2))
        inner = image[top : top + side, left : left + side]
        means[row, column] = inner.mean() if inner.size else 0.0
    return means


class PaintingCamera:
    """A camera that sees `images` (uint8 [H, W, 3] BGR) in turn, and the time. A connection as in `sources.live`."""

    lossless, damaged, ends = False, 0, True

    def __init__(self, images: Sequence[U8], fps: float, seconds: float, left: threading.Event) -> None:
        self.fps: float | None = fps
        self._images, self._rate, self._left = images, fps, left
        self._start_s = self.heard_s = time.monotonic()
        self._next, self._frames = 0, max(1, round(fps * seconds))

    def read(self) -> Shot | None:
        """The picture of this moment, once the next one is due; None at the end."""
        index = max(self._next, int((time.monotonic() - self._start_s) * self._rate))
        if index >= self._frames:
            return None
        image = self._images[index % len(self._images)].copy()
        self._left.wait(max(0.0, self._start_s + index / self._rate - time.monotonic()))
        self._next, self.heard_s = index + 1, time.monotonic()
        paint(image, self.heard_s)
        return Shot(image, index / self._rate, self.heard_s, False)

    def close(self) -> None:
        pass


class GlassSink:
    """Reads the time back from what a viewer of `run --serve` sees: the drawn picture, as JPEG and decoded again.

    Attributes:
        ages_ms: of the pictures that could be read, in order.
    """

    name, draws = "glass to glass", True

    def __init__(self) -> None:
        self.ages_ms: list[float] = []
        self.written: list[Path] = []

    def check(self) -> None:
        pass

    def write(self, result: FrameResult) -> None:
        jpeg: Any = np.frombuffer(encode(result, WIDEST, QUALITY), np.uint8)
        shown = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), dtype=np.uint8)
        age = age_s(shown, time.monotonic())
        if age is not None:
            self.ages_ms.append(1e3 * age)

    def close(self) -> None:
        pass
