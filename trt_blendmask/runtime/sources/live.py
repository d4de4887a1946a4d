"""A source that may break, hang and come back: newest frame only, reopened for ever, never in the way of the end.

supervisor                   Line (a thread per try)                  reader
opens lines, watches ──────▶ connect, decode, stamp ──▶ Slot of one ─▶ takes the newest
the clock, waits between
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from trt_blendmask.errors import DataError, SourceUnavailableError, first_line
from trt_blendmask.layout import counted
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources.connection import Connect, Connection
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.line import Line
from trt_blendmask.runtime.sources.protocol import SourceState
from trt_blendmask.runtime.sources.reasons import CLOSED, CUT_SHORT, Loss, LostError, tell_cut_short
from trt_blendmask.runtime.sources.slot import Slot
from trt_blendmask.runtime.sources.stamp import Stamp
from trt_blendmask.structures import Frame

# Promised: a camera that is back shows a picture within 5 s. Tries begin at most LONGEST_PAUSE_S times _JITTER apart:
# that leaves a second for the first picture, and cameras behind one switch are not all asked at once.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
_JITTER = (0.6, 0.8)
_LEAST_PAUSE_S = 0.3
MAX_HUNG = 4  # lines left behind that still hang; no more are opened until one of them ends
_CLOSE_S = 0.7  # how long `close` waits for each of the two threads


@dataclass(frozen=True)
class LiveOptions:
    """How a source that may break is treated.

    Attributes:
        stale_s: without a new frame for so long, the signal is lost.
        open_s: how long to wait for an answer when opening.
        max_retries: give up after so many tries in a row without a picture; None: never.
        wait: wait for a camera that is not there at the start; False: that is an error.
    """

    stale_s: float = 3.0
    open_s: float = 3.0
    max_retries: int | None = None
    wait: bool = True


class LiveSource:
    """See `trt_blendmask.runtime.sources.protocol.Source`."""

    frame_count: int | None = None

    def __init__(self, name: str, connect: Connect, options: LiveOptions, events: Events, live: bool = True) -> None:
        """Begin to open the source; `connect` opens a line, or raises.

        Raises:
            SourceUnavailableError: there is no picture, and `options.wait` is False.
        """
        self.name, self.fps, self.live, self.cut_short = name, 25.0, live, ""
        self._connect, self._options, self._events = connect, options, events
        self._slot, self._stamp = Slot(), Stamp(name, self._note)
        self._noted: deque[tuple[str, str, dict[str, Any]]] = deque()  # events to publish
        self._publishing = threading.Lock()
        self._lock = threading.RLock()  # guards what follows
        self._line: Line | None = None
        self._left: list[Line] = []
        self._damaged = self._told_corrupt = 0
        self._seen_s = 0.0  # monotonic time of the last picture before the signal was lost
        self._state = SourceState("NO SIGNAL", time.time(), "not opened yet")
        self._closed = threading.Event()
        self._first = threading.Event()  # set by the first frame, or the end
        self._wake = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="source", daemon=True)
        self._supervisor.start()
        if not options.wait:
            self._await_first()

    @property
    def dropped(self) -> int:
        return self._slot.dropped

    @property
    def corrupt(self) -> int:
        with self._lock:
            return self._damaged + self._stamp.corrupt + (self._line.damaged if self._line else 0)

    def state(self) -> SourceState:
        with self._lock:
            return self._state

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._slot.take()) is not None:
            yield frame

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        self._slot.end(discard=True)
        self._supervisor.join(_CLOSE_S)
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.leave()
            line.join(_CLOSE_S)

    def _await_first(self) -> None:
        try:
            while not self._first.wait(0.1):  # wakes now and then for Ctrl-C, as the slot does
                pass
            if self._stamp.count == 0:
                self._slot.take()  # raises
        except BaseException:
            self.close()
            raise

    def _supervise(self) -> None:
        failure: Exception | None
        try:
            failure = self._open_again_and_again()
        except Exception as error:  # a fault of ours; the reader must hear of it, and not wait for ever
            failure = error
        with self._lock:
            if failure is None or self._closed.is_set():
                self._state = SourceState("ENDED", time.time(), "", self._state.reconnects)
            else:
                since_s = self._state.since_wall_s if self._state.kind == "NO SIGNAL" else time.time()
                self._state = SourceState("NO SIGNAL", since_s, first_line(failure), self._state.reconnects)
        self._slot.end(failure)
        self._first.set()

    def _open_again_and_again(self) -> Exception | None:
        """Until the source is closed or at its end; what it fails with, if it fails for good."""
        retries = _Retries(0.0)
        while not self._closed.is_set():
            began_s = time.monotonic()
            line = self._open_line()
            loss = self._watch(line)
            self._leave(line, loss)
            if loss is None:
                if line.ends and line.failure is None and not self._stamp.count and not self._closed.is_set():
                    return DataError(f"Expected a video in '{self.name}', but not one frame could be decoded.")
                if line.loss is not None and line.loss.reason == CUT_SHORT and not self._closed.is_set():
                    self.cut_short = tell_cut_short(self.name, line.loss, self._events)
                return line.failure
            if line.frames:
                retries = _Retries(FIRST_PAUSE_S)  # that the signal is lost has been told
            most = self._options.max_retries if self._options.wait or self._stamp.count else 0
            if most is not None and retries.done >= most:
                return self._gave_up(loss, retries.done)
            pause_s = retries.next_pause(loss)
            if retries.grew:
                text = f"{self.name}: no picture ({loss.text}); trying again, at most {pause_s:g} s apart"
                self._note("source_waiting", text, {"reason": loss.reason, "retry_s": pause_s})
                self._publish()
            rest_s = pause_s * random.uniform(*_JITTER) - (time.monotonic() - began_s)
            self._closed.wait(max(rest_s, _LEAST_PAUSE_S, loss.pause_s))
        return None

    def _open_line(self) -> Line:
        hung = self._left
        while len(hung := [line for line in hung if line.is_alive()]) >= MAX_HUNG and not self._closed.is_set():
            with self._lock:
                self._state = replace(self._state, reason=f"{MAX_HUNG} earlier tries still hang")
            self._closed.wait(_LEAST_PAUSE_S)
        with self._lock:
            self._line = Line(self._reconnect, self._deliver, self._wake)
        self._left = [*hung, self._line]
        return self._line

    def _reconnect(self, left: threading.Event) -> Connection:
        connection = self._connect(left)
        if connection.lossless and self.live and self._stamp.count:
            connection.close()  # what a broadcast leaves behind when it stops (HLS), and has been shown
            raise LostError(CLOSED)
        return connection

    def _watch(self, line: Line) -> Loss | None:
        """Wait until the line is lost, and say why; None where the source is closed, at its end, or fails for good."""
        while True:
            self._wake.clear()  # before looking: what happens meanwhile sets it again
            if self._closed.is_set() or line.failure is not None:
                return None
            if line.loss is not None:
                return None if line.ends and (line.frames or line.loss == CLOSED) else line.loss
            left_s, loss = line.overdue(self._options.stale_s, self._options.open_s)
            if left_s > 0:
                self._wake.wait(min(left_s, 3600))
            elif line.loss is None and line.failure is None:  # else it has ended while we looked
                return loss

    def _leave(self, line: Line, loss: Loss | None) -> None:
        line.leave()
        with self._lock:
            breaks_off = loss is None and line.loss not in (None, CLOSED)
            self._damaged += line.damaged + breaks_off
            self._line = None
            if loss is None:
                return
            self._seen_s = self._stamp.last_s
            silent_s = time.monotonic() - self._seen_s
            since_s = self._state.since_wall_s if self._state.kind == "NO SIGNAL" else time.time() - silent_s
            was_live = self._state.kind == "LIVE"
            self._state = SourceState("NO SIGNAL", since_s, loss.text, self._state.reconnects)
            if was_live:
                since = time.strftime("%H:%M:%S", time.localtime(since_s))
                text = f"{self.name}: NO SIGNAL since {since} ({loss.text})"
                self._note("source_lost", text, {"reason": loss.reason, "silent_s": round(silent_s, 3)})
        self._publish()

    def _gave_up(self, loss: Loss, retries: int) -> SourceUnavailableError:
        after = f" after {retries} more {'try' if retries == 1 else 'tries'}" if retries else ""
        return SourceUnavailableError(
            f"Expected pictures from '{self.name}', but {loss.text}{after}. Check the camera and its address."
        )

    def _note(self, kind: str, text: str, details: dict[str, Any]) -> None:
        self._noted.append((kind, text, {"source": self.name} | details))

    def _publish(self) -> None:
        """Publish what was noted, in its order; without the lock, as a listener that hangs must not block `state`."""
        with self._publishing:
            while self._noted:
                self._events.publish(*self._noted.popleft())

    def _deliver(self, line: Line, connection: Connection, shot: Shot) -> None:
        """Take a picture from the line's thread."""
        with self._lock:
            if line is not self._line:
                return  # left behind
            if connection.fps is not None:
                self.fps = connection.fps
            self.live = not connection.lossless
            frame = self._stamp.live(shot, line.frames == 1) if self.live else self._stamp.recorded(shot, self.fps)
            if self._state.kind != "LIVE":
                self._show_live(frame)
            self._note_corrupt()
        self._publish()
        self._slot.put(frame, wait=connection.lossless)
        self._first.set()

    def _show_live(self, frame: Frame) -> None:
        first = self._stamp.count == 1
        reconnects = self._state.reconnects + (not first)
        down_s = frame.captured_s - self._seen_s
        self._state = SourceState("LIVE", time.time(), "", reconnects)
        width, height = frame.frame_wh
        text = f"{self.name}: LIVE, {width} x {height}" + ("" if first else f", after {down_s:.1f} s")
        self._note("source_opened", text, {"frame_wh": [width, height], "fps": self.fps, "reconnects": reconnects})

    def _note_corrupt(self) -> None:
        """At 1, 10, 100, ... damaged frames: neither silent nor a flood."""
        if (count := self.corrupt) >= max(1, 10 * self._told_corrupt):
            self._told_corrupt = 10 ** (len(str(count)) - 1)
            self._note("corrupt_frames", f"{self.name}: {counted(count, 'damaged frame')} so far", {"corrupt": count})


class _Retries:
    """How long to wait before the next try: longer and longer. Attributes: done: tries that were waited for; grew:
    whether the last pause was longer than the one before, and than `told_s`."""

    def __init__(self, told_s: float) -> None:
        self.done = 0
        self.grew = False
        self._pause_s = told_s

    def next_pause(self, loss: Loss) -> float:
        """Seconds."""
        pause_s = max(min(FIRST_PAUSE_S * 2.0 ** min(self.done, 9), LONGEST_PAUSE_S), loss.pause_s)
        self.grew, self._pause_s = pause_s > self._pause_s, pause_s
        self.done += 1
        return pause_s
