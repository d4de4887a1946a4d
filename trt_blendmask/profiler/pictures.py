"""The pictures that models are timed on: real ones, because the time after the network depends on what is found."""

from __future__ import annotations

import os
from contextlib import closing

import numpy as np

from trt_blendmask.bundled import VIDEO
from trt_blendmask.calibrate.pictures import choose, open_pictures
from trt_blendmask.errors import DataError
from trt_blendmask.runtime.sources import LiveOptions, open_source
from trt_blendmask.runtime.sources.grammar import parse
from trt_blendmask.structures import U8

PIPELINE = os.fspath(VIDEO)  # where none is named: to draw the belt takes longer than to decode a video
DEFAULT = "synthetic:conveyor?fps=2&seconds=8"  # 16 frames, half a second apart
MOST = 32
_MOST_BYTES = 1 << 28  # in memory; of 4K pictures that is 10
_MOST_READ = 64  # of a source


def of_source(text: str) -> list[U8]:
    """At most `MOST` frames, spread over the first `_MOST_READ` of a source, which may also be a camera.

    Raises:
        as `open_source`; DataError: it gives no frame.
    """
    kept: list[U8] = []
    every = 1
    with closing(open_source(text, LiveOptions(wait=False, max_retries=0))) as source:
        for number, frame in enumerate(source):
            if number >= _MOST_READ:
                break
            if number % every == 0:
                kept.append(frame.image)
                if len(kept) > _room(kept):
                    kept, every = kept[::2], 2 * every
    if not kept:
        raise DataError(
            f"Expected frames from '{parse(text).name}', but it gave none. Name another: --source synthetic:conveyor"
        )
    return kept


def of_images(text: str) -> tuple[list[U8], int]:
    """At most `MOST` of a folder, list or video, evenly spread, and how many of those cannot be read and are left out.

    Raises:
        as `open_pictures`; DataError: none can be read.
    """
    pictures, kept, unreadable = open_pictures(text), list[U8](), 0
    for picture in pictures.read(set(choose(pictures, MOST, False, lambda: None))):
        if picture.image is None:
            unreadable += 1
        elif len(kept) < _room([*kept, picture.image]):
            kept.append(picture.image)
    if not kept:
        raise DataError(
            f"Expected pictures in '{text}', but none of {unreadable} can be read. Name others: --images DIR"
        )
    return kept, unreadable


def of_noise(input_hw: tuple[int, int]) -> list[U8]:
    """Random pixels."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*input_hw, 3), dtype=np.uint8) for _ in range(8)]


def _room(images: list[U8]) -> int:
    return max(1, min(MOST, _MOST_BYTES // max(image.nbytes for image in images)))
