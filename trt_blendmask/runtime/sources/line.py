"""One try to get pictures: a thread that connects, reads, and ends with a reason."""

from __future__ import annotations

import atexit
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable

from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.runtime.sources.connection import Connect, Connection
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.reasons import CLOSED, Loss, loss_of

FIRST_FRAME_S = 15.0  # packets may come for so long before a key frame does: cameras with "smart codecs" send few
EXIT_S = 4.0  # longer than FFmpeg may hang by its own limits, with the default options
_lines: weakref.WeakSet[Line] = weakref.WeakSet()
Deliver = Callable[["Line", Connection, Shot], None]


class Line(threading.Thread):
    """The thread may hang inside a library; it is then left behind, and ends when the library returns.

    Attributes:
        frames, damaged: how many pictures it has brought, and of how many packets none could be made.
        ends: whether its end is the end of the source.
        loss, failure: why it ended: a break, after which a next try makes sense, or an error of the user's.
    """

    def __init__(self, connect: Connect, deliver: Deliver, wake: threading.Event) -> None:
        super().__init__(name="source line", daemon=True)
        self.frames = self.damaged = 0
        self.ends = False
        self.loss: Loss | None = None
        self.failure: TrtBlendMaskError | None = None
        self._connect, self._deliver, self._wake = connect, deliver, wake
        self._connection: Connection | None = None
        self._left = threading.Event()
        self._fresh_s = self._opened_s = time.monotonic()
        _lines.add(self)
        self.start()

    def leave(self) -> None:
        """Want nothing more from it."""
        self._left.set()

    def overdue(self, stale_s: float, open_s: float) -> tuple[float, Loss]:
        """In how many seconds (<= 0: now) it counts as lost if nothing comes until then, and what to call that."""
        now_s, connection = time.monotonic(), self._connection
        if connection is None:  # the library has limits of its own for opening and for looking at the format
            return self._opened_s + 2 * open_s + 1 - now_s, Loss("timeout", "no answer in time")
        if connection.lossless:
            return 3600.0, CLOSED
        if self.frames:
            return self._fresh_s + stale_s - now_s, Loss("stale", f"no new picture for {stale_s:g} s")
        silent_s, blind_s = connection.heard_s + stale_s - now_s, self._opened_s + FIRST_FRAME_S - now_s
        if silent_s < blind_s:
            return silent_s, Loss("stale", f"nothing came for {stale_s:g} s")
        return blind_s, Loss("garbage", f"not one picture in {FIRST_FRAME_S:g} s")

    def run(self) -> None:
        loss, failure = CLOSED, None
        try:
            self._open_and_read()
        except TrtBlendMaskError as error:
            failure = error
        except Exception as error:  # whatever a library thinks of: a camera's trouble must not end the program
            loss = loss_of(error)
        if failure is None:
            self.loss = loss
        self.failure = failure
        self._connection = None
        self._wake.set()
        gc.collect()  # PyAV's containers and streams refer to each other; with them go the threads of the decoder

    def _open_and_read(self) -> None:
        connection = self._connect(self._left)
        self._opened_s, self.ends = time.monotonic(), connection.ends
        self._connection = connection
        self._wake.set()  # other limits hold from now on
        try:
            self._read(connection)
        finally:
            connection.close()

    def _read(self, connection: Connection) -> None:
        while not self._left.is_set():
            shot = connection.read()
            self.damaged = connection.damaged
            if shot is None:
                return
            self._fresh_s = time.monotonic()
            self.frames += 1
            self._deliver(self, connection, shot)


@atexit.register
def _wait_for_lines() -> None:
    """FFmpeg calls PyAV back ten times a second while it hangs; when Python is gone by then, the program crashes."""
    end_s = time.monotonic() + EXIT_S
    with contextlib.suppress(KeyboardInterrupt):  # who presses Ctrl-C again does not want to wait
        for line in list(_lines):
            line.leave()
            line.join(max(0.0, end_s - time.monotonic()))
