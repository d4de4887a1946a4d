"""Where results go. A sink that fails is left out from then on, told, and counted; the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from trt_blendmask.errors import OutputError, TrtBlendMaskError, first_line
from trt_blendmask.files import temporary_beside
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.result import FrameResult


class Sink(Protocol):
    """Takes results in order, in one thread. It opens what it writes with the first of them, not before.

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
        self._sink, self._number = sink, number

    @property
    def draws(self) -> bool:
        return self._sink.draws

    @property
    def written(self) -> list[Path]:
        return self._sink.written

    def write(self, result: FrameResult) -> None:
        if result.source_number == self._number:
            self._sink.write(result)


class Sinks:
    """Several sinks as one.

    Attributes:
        draws: whether one that still works needs `FrameResult.picture`.
        failures: why outputs were stopped, a sentence each, in order.
    """

    def __init__(self, sinks: Iterable[Sink], events: Events, exit_on_failure: bool = False) -> None:
        """
        Raises:
            OutputError: a name that can never do, or no sink has a place to write to.
        """
        self.failures: list[str] = []
        self._all = tuple(sinks)
        self._working = list(self._all)
        self._events, self._exit = events, exit_on_failure
        for sink in self._all:
            if error := _failure(sink.check):
                # A folder where a file should be is the user's slip; a disk that is gone may come back.
                if self._exit or not isinstance(error.__cause__, OSError) or len(self._all) == 1:
                    raise error
                self._stop(sink, error)
        if self._all and not self._working:
            raise OutputError(self.failures[0])

    @property
    def working(self) -> bool:
        """Whether there is one that still works."""
        return bool(self._working)

    @property
    def draws(self) -> bool:
        return any(sink.draws for sink in self._working)

    @property
    def written(self) -> tuple[Path, ...]:
        return tuple(path for sink in self._all for path in sink.written)

    def write(self, result: FrameResult) -> None:
        """Hand `result` to every sink that still works.

        Raises:
            OutputError: one has just failed, and that is to end the run.
        """
        for sink in tuple(self._working):
            if error := _failure(partial(sink.write, result)):
                _failure(sink.close)
                self._stop(sink, error)
                if self._exit or isinstance(error, BrokenPipeError):  # nobody reads: `run ... --json - | head`
                    raise OutputError(self.failures[-1]) from error

    def close(self) -> None:
        """Finish every sink that still works; what fails is told and counted, not raised."""
        for sink in tuple(self._working):
            if error := _failure(sink.close):
                self._stop(sink, error)
        self._working.clear()

    def _stop(self, sink: Sink, error: Exception) -> None:
        self._working.remove(sink)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        text = reason if isinstance(error, TrtBlendMaskError) else f"Cannot write '{sink.name}': {reason}"
        kept = f"; kept: {', '.join(map(str, sink.written))}" if sink.written else ""
        self.failures.append(f"{text}.")
        self._events.publish(
            "output_stopped", f"{sink.name}: output stopped ({text}){kept}", {"output": sink.name, "reason": reason}
        )


def _failure(work: Callable[[], None]) -> Exception | None:
    """What `work` raises, whatever it is: the other sinks do not care."""
    try:
        work()
    except Exception as error:
        return error
    return None


def check_place(path: Path) -> None:
    """Whether the file `path` could be written; its folder is made, an older file stays.

    Raises:
        OutputError: it could not.
    """
    with temporary_beside(path):
        pass
