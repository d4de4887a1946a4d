"""Pictures of a line that breaks now and then become the frames of one source: numbers, times, what looks wrong."""

from __future__ import annotations

import time
import zlib

from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.structures import U8, Frame

FROZEN_S = 10.0  # the same picture for so long: no sensor is that quiet
_JUMP_S = 5.0  # presentation times this far from the arrival are of another clock
_STEP = 8  # every eighth row and column tell whether a picture is the same


class Stamp:
    """Numbers frames and carries their times over breaks, on the clock of their arrival.

    Attributes: corrupt: pictures so far that were damaged but shown; count: all of them; last_s: `time.monotonic` of
    the last one.
    """

    def __init__(self, name: str, events: Events) -> None:
        self.count = self.corrupt = 0
        self.last_s = time.monotonic()
        self._name, self._events = name, events
        self._start_s = self._offset_s = self._time_s = 0.0
        self._wh = (0, 0)
        self._print, self._still_since_s, self._frozen = 0, 0.0, False

    def recorded(self, shot: Shot, fps: float) -> Frame:
        """The next frame of a recording: by its own times, or `fps` where it has none."""
        pts_s = shot.pts_s if shot.pts_s is not None else self.count / fps
        if self.count == 0:
            self._offset_s = -pts_s
        return self._frame(shot, pts_s + self._offset_s)

    def live(self, shot: Shot, is_first: bool) -> Frame:
        """The next frame of a camera; `is_first` of a new line."""
        if self.count == 0:
            self._start_s = shot.captured_s
        arrival_s = shot.captured_s - self._start_s
        pts_s = shot.pts_s if shot.pts_s is not None else arrival_s - self._offset_s
        if is_first or abs(pts_s + self._offset_s - arrival_s) > _JUMP_S:
            self._offset_s = arrival_s - pts_s
        frame = self._frame(shot, max(pts_s + self._offset_s, self._time_s))
        self._watch_still(shot.image, shot.captured_s)
        return frame

    def _frame(self, shot: Shot, time_s: float) -> Frame:
        age_s = time.monotonic() - shot.captured_s
        frame = Frame(shot.image, self.count, time_s, "", shot.captured_s, time.time() - age_s, self._name)
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
            self._events.publish("frozen_image", text, {"source": self._name, "seconds": FROZEN_S})

    def _tell_format_changed(self, wh: tuple[int, int]) -> None:
        old = self._wh
        text = f"{self._name}: the picture is now {wh[0]} x {wh[1]}, it was {old[0]} x {old[1]}"
        self._events.publish("format_changed", text, {"source": self._name, "from_wh": list(old), "to_wh": list(wh)})
