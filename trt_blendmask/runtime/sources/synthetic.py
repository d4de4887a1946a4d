"""The synthetic conveyor belt as a source, recorded or as a camera would see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np

from trt_blendmask.errors import UsageError
from trt_blendmask.runtime.images import MAX_PIXELS
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.grammar import FORMS, SourceAddress, number, size_wh
from trt_blendmask.runtime.sources.protocol import Recorded
from trt_blendmask.structures import U8, Frame


class Belt:
    """What `synthetic:conveyor[?seed=1&fps=25&size=1024x576&seconds=10&live=0]` asks for.

    Attributes:
        frame_count: how many frames; None without end, which is what a live belt is unless `seconds` is given.
        live: whether it runs by the clock.
    """

    def __init__(self, address: SourceAddress) -> None:
        """Raises UsageError: options out of range."""
        from trt_blendmask.synthetic import Conveyor

        options = address.options
        width, height = size_wh(options) or (1024, 576)
        seed, live = options.get("seed", "1"), options.get("live", "0")
        if not (
            seed.isdecimal() and live in ("0", "1") and width >= 64 and height >= 36 and width * height <= MAX_PIXELS
        ):
            raise UsageError(
                f"Expected {FORMS['synthetic']}, with a whole seed and a size from 64x36 on, got '{address.name}'."
            )
        self.name, self.live = address.name, live == "1"
        self.fps = number(options, "fps", 25, 0, 1000)
        seconds = number(options, "seconds", 10, 0, 86400)
        endless = self.live and "seconds" not in options
        self.frame_count = None if endless else max(1, int(seconds * self.fps + 0.5))
        self._conveyor = Conveyor(int(seed), (width, height), self.fps)

    def image(self, index: int) -> U8:
        """Frame `index`, uint8 [H, W, 3] BGR."""
        return np.ascontiguousarray(self._conveyor.frame(index).image)


class SyntheticSource(Recorded):
    """Parts on a moving belt, rendered as asked."""

    def __init__(self, belt: Belt) -> None:
        super().__init__(belt.name)
        self.fps, self.frame_count, self._belt = belt.fps, belt.frame_count, belt

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frame_count or 0):
            yield self._frame(self._belt.image(index), index / self.fps)
        self._end()

    def close(self) -> None:
        pass


class BeltCamera:
    """A camera above the belt: the picture of this moment, `fps` times a second. A connection as in `live`."""

    lossless, damaged = False, 0

    def __init__(self, belt: Belt, left: threading.Event) -> None:
        self.fps: float | None = belt.fps
        self.ends = belt.frame_count is not None
        self._belt, self._left = belt, left
        self._start_s = self.heard_s = time.monotonic()
        self._next = 0

    def read(self) -> Shot | None:
        index = max(self._next, int((time.monotonic() - self._start_s) * self._belt.fps))
        if self._belt.frame_count is not None and index >= self._belt.frame_count:
            return None
        self._left.wait(max(0.0, self._start_s + index / self._belt.fps - time.monotonic()))
        self._next = index + 1
        self.heard_s = time.monotonic()
        return Shot(self._belt.image(index), index / self._belt.fps, self.heard_s, False)

    def close(self) -> None:
        pass
