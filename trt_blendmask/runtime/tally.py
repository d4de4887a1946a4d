"""What has come of the frames of a run so far."""

from __future__ import annotations

import time

import numpy as np

from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.layout import counted
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.result import FrameResult

MAX_BROKEN = 10  # frames in a row whose outputs are no numbers
_AGES = 100_000  # kept for the summary, the newest: an hour at 25 FPS


class Tally:
    """Counts what has come out of a run.

    Attributes:
        frames, detections: how many are out. broken: frames whose outputs were no numbers.
    """

    def __init__(self, events: Events) -> None:
        self.frames = self.detections = self.broken = 0
        self._in_a_row, self._told = 0, 0
        self._ages, self._aged = np.zeros(_AGES, np.float32), 0  # seconds, in a ring; how many there were
        self._events = events

    def add(self, result: FrameResult, live: bool) -> None:
        """One frame is out.

        Raises:
            TrtBlendMaskError: the network gives no numbers any more.
        """
        self.frames, self.detections = self.frames + 1, self.detections + len(result.detections)
        if live:
            self._ages[self._aged % _AGES] = time.monotonic() - result.frame.captured_s
            self._aged += 1
        self.broken += result.broken
        self._in_a_row = self._in_a_row + 1 if result.broken else 0
        if result.broken and self.broken >= max(1, 10 * self._told):  # at 1, 10, 100, ...
            self._told = 10 ** (len(str(self.broken)) - 1)
            text = f"the network gave something that is no number, in {counted(self.broken, 'frame')} so far; left out"
            self._events.publish("broken_outputs", text, {"frames": self.broken})
        if self._in_a_row >= MAX_BROKEN:
            raise TrtBlendMaskError(
                f"Expected numbers from the network, but {MAX_BROKEN} frames in a row had outputs that are none (NaN "
                "or infinite). Look at the model with trt-blendmask inspect, and build it again."
            )

    def age_ms(self) -> tuple[float, float] | None:
        """Median and 99th percentile of how old live frames were when they were out."""
        if not self._aged:
            return None
        half, most = np.percentile(self._ages[: self._aged], [50, 99]) * 1e3
        return float(half), float(most)
