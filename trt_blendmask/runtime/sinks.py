"""Where results go. A sink that fails is left out from then on, told, and counted; the others go on.

One that hangs, as on a network disk that is gone, is told, too: the results of a file wait for it, those of a camera go
on without it until it is back, and the end of the run leaves it behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from trt_blendmask.errors import OutputError, OutputNameError, TrtBlendMaskError, first_line
from trt_blendmask.files import temporary_beside
from trt_blendmask.layout import counted
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.outlet import Outlet, failure
from trt_blendmask.runtime.result import FrameResult

_LOOK_S = 0.1  # how often a wait is looked at
_SIGNAL_S = 0.5  # from a signal that ends a reader and us to `hurry`, at most
_WRITE_S, _CLOSE_S = 1.0, 1.4  # from a signal to the end of what is being written, and to that of the files


class Sink(Protocol):
    """Takes results in order, in a thread of its own, which also closes it; another one checks it before. It opens what
    it writes with the first result, not sooner.

    Attributes:
        name: what the user typed, without credentials.
        draws: whether it needs `FrameResult.picture`.
        written: files or folders so far, in order.
    """

    name: str

    @property
    def draws(self) -> bool: ...

    @property
    def written(self) -> list[Path]: ...

    def check(self) -> None:
        """Find out whether there is a place to write to; what is there stays as it is.

        Raises:
            OutputError: there is none.
        """

    def write(self, result: FrameResult) -> None:
        """Take one result.

        Raises:
            OutputError, OSError: it could not be kept.
        """

    def close(self) -> None:
        """Finish what was written; also after a failed `write`.

        Raises:
            OutputError, OSError: that failed.
        """


class OfOneSource:
    """A sink that is given the results of one source only."""

    def __init__(self, sink: Sink, number: int) -> None:
        self.name, self.check, self.close = sink.name, sink.check, sink.close
        self.sink, self.number = sink, number

    @property
    def draws(self) -> bool:
        return self.sink.draws

    @property
    def written(self) -> list[Path]:
        return self.sink.written

    def write(self, result: FrameResult) -> None:
        self.sink.write(result)


class Sinks:
    """Several sinks as one.

    Attributes:
        draws: whether one that still works needs `FrameResult.picture`.
        failures: why outputs were stopped, a sentence each, in order.
    """

    def __init__(self, sinks: Iterable[Sink], events: Events, exit_on_failure: bool = False) -> None:
        """Check them all; where that fails, those that were checked are closed.

        Raises:
            OutputError: a name that can never do, or no sink has a place to write to.
        """
        self.failures: list[str] = []
        self._all = tuple(Outlet(sink) for sink in sinks)
        self._working: list[Outlet] = []
        self._write_until_s = self._close_until_s = float("inf")
        self._hurried = threading.Event()
        self._events, self._exit = events, exit_on_failure
        for outlet in self._all:
            if (error := failure(outlet.sink.check)) is None:
                self._working.append(outlet)
            else:
                # A disk that is gone, or an encoder that is missing, costs that output; a slip is told before any work.
                is_slip = isinstance(error, OutputNameError) or not isinstance(error, OutputError)
                if is_slip or self._exit or len(self._all) == 1:
                    self.close()
                    raise error
                self._note_stopped(outlet, error)
        if self._all and not self._working:
            raise OutputError(self.failures[0])

    @property
    def working(self) -> bool:
        """Whether there is one that still works."""
        return bool(self._working)

    def has(self, kind: type) -> bool:
        """Whether one of that kind still works; from any thread."""
        sinks = [outlet.sink for outlet in tuple(self._working)]
        return any(isinstance(one.sink if isinstance(one, OfOneSource) else one, kind) for one in sinks)

    @property
    def draws(self) -> bool:
        return any(outlet.sink.draws for outlet in self._working)

    @property
    def written(self) -> tuple[Path, ...]:
        return tuple(path for outlet in self._all for path in outlet.sink.written)

    def write(self, result: FrameResult, hung_s: float = float("inf"), waits: bool = True) -> None:
        """Hand `result` to every sink that still works, all at a time.

        Args:
            hung_s: one that takes longer hangs. waits: for it, all the same.

        Raises:
            OutputError: one has just failed, and that is to end the run; as where a reader left and was the only one.
        """
        until_s = time.monotonic() + hung_s
        outlets = [outlet for outlet in self._working if _is_for(outlet.sink, result)]
        for outlet in outlets:
            if not outlet.is_done(0.0):
                outlet.missed += 1
                continue
            self._tell_back(outlet)
            if outlet.error is None:
                outlet.begin(partial(_write, outlet.sink, result))
        for outlet in outlets:
            self._await(outlet, until_s, waits)
            if (error := outlet.error) is not None:
                nobody_reads = isinstance(error, BrokenPipeError)
                if nobody_reads and self._hurried.wait(_SIGNAL_S):  # Ctrl-C ends all of `run ... --json - | jq .`
                    self._leave(outlet)
                    continue
                self._stop(outlet, error)
                if self._exit or (nobody_reads and not self._working):  # `run ... --json - | head`
                    raise OutputError(self.failures[-1]) from error

    def hurry(self) -> None:
        """From another thread: the run is to end now, and what hangs is left behind."""
        now_s = time.monotonic()
        self._write_until_s = min(self._write_until_s, now_s + _WRITE_S)
        self._close_until_s = min(self._close_until_s, now_s + _CLOSE_S)
        self._hurried.set()

    def close(self, hung_s: float = float("inf")) -> None:
        """Finish every sink that still works, all at a time; what fails is told and counted, not raised.

        Args:
            hung_s: one that takes longer hangs, and is left as it is.
        """
        until_s, closing = time.monotonic() + hung_s, tuple(self._working)
        for outlet in closing:
            outlet.begin(outlet.sink.close)
        for outlet in closing:
            while not outlet.is_done(_LOOK_S) and time.monotonic() < min(until_s, self._close_until_s):
                pass
            if not outlet.is_done(0.0):
                self._stop(outlet, OutputError(f"Cannot finish '{outlet.sink.name}': it hangs"))
            elif outlet.error is not None:
                self._stop(outlet, outlet.error)
            else:
                outlet.leave()
        self._working.clear()

    def _await(self, outlet: Outlet, until_s: float, waits: bool) -> None:
        """Until the outlet is done, or nobody waits for it any more."""
        while not outlet.is_done(0.0 if outlet.hangs and not waits else _LOOK_S):
            now_s = time.monotonic()
            if now_s > until_s and not outlet.hangs:
                outlet.hangs = True
                what = "waits for it" if waits else "goes on without it"
                self._tell(outlet, "output_hangs", f"hangs, the run {what}")
            if (outlet.hangs and not waits) or now_s > self._write_until_s:
                return
        self._tell_back(outlet)

    def _tell_back(self, outlet: Outlet) -> None:
        if outlet.hangs and outlet.error is None:
            outlet.hangs = False
            self._tell(outlet, "output_back", f"goes on, {counted(outlet.missed, 'frame')} left out so far")

    def _stop(self, outlet: Outlet, error: BaseException) -> None:
        if not isinstance(error, Exception):  # SystemExit and its like are no failure of the sink
            outlet.error = None
            raise error
        self._leave(outlet)
        self._note_stopped(outlet, error)

    def _note_stopped(self, outlet: Outlet, error: BaseException) -> None:
        sink = outlet.sink
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        text = reason if isinstance(error, TrtBlendMaskError) else f"Cannot write '{sink.name}': {reason}"
        kept = f"; kept: {', '.join(map(str, sink.written))}" if sink.written else ""
        self.failures.append(f"{text}.")
        self._events.publish(
            "output_stopped", f"{sink.name}: output stopped ({text}){kept}", {"output": sink.name, "reason": reason}
        )

    def _leave(self, outlet: Outlet) -> None:
        self._working.remove(outlet)
        outlet.leave()

    def _tell(self, outlet: Outlet, kind: str, what: str) -> None:
        name = outlet.sink.name
        self._events.publish(kind, f"{name}: output {what}", {"output": name, "missed": outlet.missed})


def _is_for(sink: Sink, result: FrameResult) -> bool:
    return not isinstance(sink, OfOneSource) or sink.number == result.source_number


def _write(sink: Sink, result: FrameResult) -> None:
    """Closes the sink where that fails: it will not be given another."""
    try:
        sink.write(result)
    except Exception:
        with suppress(Exception):
            sink.close()
        raise


def check_place(path: Path) -> None:
    """Whether the file `path` could be written; its folder is made, an older file stays.

    Raises:
        OutputError: it could not.
    """
    with temporary_beside(path):
        pass
