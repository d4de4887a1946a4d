"""Holding a latency: first frames are dropped, then detections, then the model changes; and back, in that order."""

from __future__ import annotations

import threading
import time
from collections import deque

from trt_blendmask.runtime.events import Events
from trt_blendmask.structures import Detections, Frame

WINDOW = 20  # frames by which it is judged
# Consecutive drops; if fresh frames are late as well, dropping does not help, and the next step must act.
_MOST_DROPS = 3
KEPT = 10  # the best detections that are kept where there is no time for more
_CALM = 0.5  # back a step where frames take less than this part of the deadline
_FIRST_PATIENCE, _MOST_PATIENCE = 5, 320  # windows of calm before going back; doubled each time that was too soon


class Deadline:
    """Told how old each frame was when it was done; says what to leave out.

    Attributes:
        step: 0: drops only; 1: at most `KEPT` detections, too; 2: the smaller model, too (where there is one).
    """

    def __init__(self, limit_s: float | None, has_fallback: bool, events: Events) -> None:
        self.step = 0
        self._limit_s, self._most, self._events = limit_s, 1 + has_fallback, events
        self._lock = threading.Lock()
        self._ages: deque[float] = deque(maxlen=WINDOW)
        self._work: deque[float] = deque(maxlen=WINDOW)  # seconds from `take` to the end
        self._calm, self._patience, self._missed = 0, _FIRST_PATIENCE, False
        self._told_drop, self._tell_drop, self._dropped = False, False, 0

    def too_old(self, frame: Frame) -> bool:
        """Whether a frame that nobody has begun with would come too late though a fresh one would not.

        Called where others wait for a lock: what is to be told, the next `done` tells.
        """
        if self._limit_s is None:
            return False
        with self._lock:
            work_s = sorted(self._work)[len(self._work) // 2] if len(self._work) == WINDOW else 0.0
            late = time.monotonic() - frame.captured_s + work_s > self._limit_s
            drops = late and 0 < work_s <= 0.9 * self._limit_s and self._dropped < _MOST_DROPS
            self._dropped = self._dropped + 1 if drops else 0
            self._tell_drop = self._tell_drop or (drops and not self._told_drop)
            self._told_drop = self._told_drop or drops
        return drops

    def limited(self, found: Detections) -> Detections:
        """The detections that there is time for; they are sorted, best first."""
        return found.top(KEPT) if self.step >= 1 else found

    def done(self, age_s: float, work_s: float) -> None:
        """One frame is out, `age_s` after its capture and `work_s` after work on it began."""
        if self._limit_s is None:
            return
        with self._lock:
            tell_drop, self._tell_drop = self._tell_drop, False
        if tell_drop:
            self._tell("frames that would come too late are dropped", 0)
        with self._lock:
            self._ages.append(age_s)
            self._work.append(work_s)
            if len(self._ages) < WINDOW:
                return
            slow_s = sorted(self._ages)[-1 - WINDOW // 10]
            before = self.step
            if slow_s > self._limit_s:
                self._up()
            elif self.step and slow_s < _CALM * self._limit_s:
                self._down()
            after = self.step
            missed, self._missed = self._missed, slow_s > self._limit_s and after == before == self._most
            tell_missed = self._missed and not missed
            self._ages.clear()
        what = f"frames take {1e3 * slow_s:.0f} ms"
        if after != before:
            self._tell(f"{what}: {_STEPS[after]}", after)
        elif tell_missed:
            self._tell(f"{what}, and nothing is left to leave out", after)

    def _up(self) -> None:
        if self._calm < 0:  # had gone back too soon
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._calm, self.step = 0, min(self.step + 1, self._most)

    def _down(self) -> None:
        self._calm = max(self._calm, 0) + 1
        if self._calm >= self._patience:
            self._calm, self.step = -1, self.step - 1

    def _tell(self, what: str, step: int) -> None:
        limit_ms = 1e3 * (self._limit_s or 0)
        self._events.publish("deadline", f"deadline of {limit_ms:g} ms: {what}", {"step": step})


_STEPS = (
    "all detections are kept again",
    f"only the {KEPT} best detections are kept",
    "the smaller model works now",
)
