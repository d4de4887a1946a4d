"""The overlay video of a run: one file, or a new one now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording.segments import free, next_part, prune, segment
from trt_blendmask.runtime.recording.video import LONGEST_GAP_S, VideoFile, choose_encoder, shortcomings
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import check_place
from trt_blendmask.structures import Frame

_PRUNE_EVERY_S = 5.0


class Recorder:
    """Begins another file where the picture changes its size or shape or none came for long (belt.part2.mp4), and, with
    `segment_s`, after so many seconds of source time (belt-20260131T120000Z.mp4). The first frame empties an older
    file, not the start of the run.
    """

    draws = True

    def __init__(
        self,
        path: Path,
        fps: Callable[[], float],
        events: Events,
        segment_s: float | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        """`fps`: nominal frames per second of the source; asked for with each file, as a camera's comes with its first
        frame."""
        self.name = str(path)
        self.written: list[Path] = []
        self._path, self._fps, self._events = path, fps, events
        self._segment_s, self._keep_bytes = segment_s, keep_bytes
        self._video: VideoFile | None = None
        self._wh, self._pixel_aspect = (0, 0), Fraction(1)
        self._began_s = self._last_s = self._pruned_s = 0.0

    def check(self) -> None:
        check_place(self._path)
        if lacks := shortcomings(self._path, choose_encoder()):
            self._events.publish("encoder_fallback", lacks, {"output": self.name})

    def write(self, result: FrameResult) -> None:
        frame = result.frame
        if self._video is None or self._is_over(frame):
            self.close()
            self._wh, self._pixel_aspect, self._began_s = frame.frame_wh, frame.pixel_aspect, frame.time_s
            path = self._next_path(frame.wall_s or time.time())
            self._video = VideoFile(path, self._fps(), self._wh, self._pixel_aspect)
            self.written.append(path)
            self._pruned_s = 0.0
        self._video.write(result.picture, frame.time_s - self._began_s)
        self._last_s = frame.time_s
        if self._keep_bytes is not None and time.monotonic() - self._pruned_s > _PRUNE_EVERY_S:
            self._prune(self._keep_bytes)

    def close(self) -> None:
        if self._video is not None:
            video, self._video = self._video, None
            try:
                video.close()
            finally:
                self._forget_empty(self.written[-1])

    def _is_over(self, frame: Frame) -> bool:
        """Whether `frame` belongs into another file than the one before."""
        if (frame.frame_wh, frame.pixel_aspect) != (self._wh, self._pixel_aspect):
            return True
        if frame.time_s - self._last_s > LONGEST_GAP_S:
            return True
        return self._segment_s is not None and frame.time_s - self._began_s >= self._segment_s

    def _forget_empty(self, path: Path) -> None:
        """A full disk has room for empty files: one for each start of the run, if it is started again and again."""
        with suppress(OSError):
            if not path.stat().st_size:
                path.unlink()
                self.written.remove(path)

    def _next_path(self, wall_s: float) -> Path:
        if self._segment_s is not None:
            return free(segment(self._path, wall_s))
        return next_part(self._path) if self.written else self._path

    def _prune(self, keep_bytes: int) -> None:
        self._pruned_s = time.monotonic()
        with suppress(OSError):  # a segment that cannot be deleted is no reason to stop recording
            gone = prune(self._path, keep_bytes, self.written)
            self.written = [path for path in self.written if path not in gone]
