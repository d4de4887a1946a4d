"""Pictures of a line that breaks now and then become the frames of one source: numbers, times, what looks wrong."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from typing import Any

from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.structures import U8, Frame

FROZEN_S = 10.0  # the same picture for so long: no sensor is that quiet
_GAP_S = 3600.0  # a recording whose times leave out more was joined from two, and goes on at once
_JUMP_S = 5.0  # presentation times this far from the arrival are of another clock
# Drift: if a frame's time runs ahead of its arrival, correct by (ahead / _PULL_S) per second, at most _MOST of a step.
# If it lags, correct by at most _CREEP per second, because lag is mostly network delay.
_PULL_S, _MOST, _CREEP = 2.0, 0.9, 0.001
_LEAST_S = 1e-4  # between two frames: some ticks of a video file
_STEP = 8  # every eighth row and column tell whether a picture is the same


class Stamp:
    """Numbers frames and carries their times over breaks, on the clock of their arrival.

    Attributes: corrupt: pictures so far that were damaged but shown; count: all of them; last_s: `time.monotonic` of
    the last one.
    """

    def __init__(self, name: str, publish: Callable[[str, str, dict[str, Any]], None]) -> None:
        """`publish`: as `trt_blendmask.runtime.events.Events` does."""
        self.count = self.corrupt = 0
        self.last_s = time.monotonic()
        self._name, self._publish = name, publish
        self._start_s = self._offset_s = 0.0
        self._time_s = -_LEAST_S
        self._wh = (0, 0)
        self._print, self._still_since_s, self._frozen = 0, 0.0, False

    def recorded(self, shot: Shot, fps: float) -> Frame:
        """The next frame of a recording: by its own times, or `fps` where it has none or they begin again."""
        next_s = self._time_s + 1 / fps if self.count else 0.0
        time_s = shot.pts_s + self._offset_s if shot.pts_s is not None else next_s
        if self.count == 0 or not -2 / fps < time_s - self._time_s < _GAP_S:
            self._offset_s, time_s = self._offset_s + next_s - time_s, next_s
        return self._frame(shot, max(time_s, self._time_s + _LEAST_S))

    def live(self, shot: Shot, is_first: bool) -> Frame:
        """The next frame of a camera; `is_first` of a new line."""
        if self.count == 0:
            self._start_s = shot.captured_s
        arrival_s = shot.captured_s - self._start_s
        time_s = shot.pts_s + self._offset_s if shot.pts_s is not None else arrival_s
        step_s, ahead_s = time_s - self._time_s, time_s - arrival_s
        waited_s = shot.captured_s - self.last_s
        if is_first or step_s < _LEAST_S or step_s - waited_s > _JUMP_S or ahead_s < -_JUMP_S:
            back_s = time_s - max(arrival_s, self._time_s + _LEAST_S)
        else:
            back_s = max(-_CREEP * step_s, min(ahead_s * min(step_s / _PULL_S, 1), _MOST * step_s))
        self._offset_s -= back_s
        frame = self._frame(shot, time_s - back_s)
        self._watch_still(shot.image, shot.captured_s)
        return frame

    def _frame(self, shot: Shot, time_s: float) -> Frame:
        age_s = time.monotonic() - shot.captured_s
        wall_s = time.time() - age_s
        frame = Frame(shot.image, self.count, time_s, "", shot.captured_s, wall_s, self._name, shot.pixel_aspect)
        if self._wh not in ((0, 0), frame.frame_wh):
            self._tell_format_changed(frame.frame_wh)
        self._wh, self._time_s, self.last_s = frame.frame_wh, time_s, shot.captured_s
        self.count += 1
        self.corrupt += shot.corrupt
        return frame

    def _watch_still(self, image: U8, now_s: float) -> None:
        new = zlib.crc32(image[::_STEP, ::_STEP].tobytes())
        if new != self._print:
            self._print, self._still_since_s, self._frozen = new, now_s, False
        elif now_s - self._still_since_s >= FROZEN_S and not self._frozen:
            self._frozen = True
            text = f"{self._name}: the picture has not changed for {FROZEN_S:g} s; is the camera frozen?"
            self._publish("frozen_image", text, {"source": self._name, "seconds": FROZEN_S})

    def _tell_format_changed(self, wh: tuple[int, int]) -> None:
        old = self._wh
        text = f"{self._name}: the picture is now {wh[0]} x {wh[1]}, it was {old[0]} x {old[1]}"
        self._publish("format_changed", text, {"source": self._name, "from_wh": list(old), "to_wh": list(wh)})
