"""A sink at work in a thread of its own, so that one that hangs holds up neither the run nor its end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trt_blendmask.runtime.sinks import Sink


class Outlet:
    """Runs callables in order in its own thread. The caller polls `is_done` and reads `error`.

    Attributes:
        sink: what is written to.
        error: what work raised first.
        hangs: noted by whoever waits. missed: results that it was not given meanwhile.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.error: BaseException | None = None
        self.hangs, self.missed = False, 0
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open = 0  # begun, and not heard of yet

    def begin(self, work: Callable[[], None]) -> None:
        """Do `work` after what was begun before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="output", daemon=True)
            self._thread.start()
        self._open += 1
        self._work.put(work)

    def is_done(self, seconds: float) -> bool:
        """Wait so long, at most, for all that was begun; whether it is done."""
        with suppress(queue.Empty):
            while self._open:
                self.error = self._outcomes.get(timeout=seconds) or self.error
                self._open -= 1
        return not self._open

    def leave(self) -> None:
        """No more work comes."""
        self._work.put(None)
        if self._thread is not None and not self._open:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._outcomes.put(failure(work))


def failure(work: Callable[[], None]) -> BaseException | None:
    """What `work` raises, whatever it is: others do not care."""
    try:
        work()
    except BaseException as error:
        return error
    return None
