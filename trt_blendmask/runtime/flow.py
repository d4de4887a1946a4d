"""Who waits for whom in a run: one lock, bounded places, nothing that grows.

reader per source             network threads              sink thread
offer ──▶ [place] ──────────▶ take ─── done ──▶ [slots] ──▶ next_result
          file: reader waits;                  in the order of `take`, each as soon as it
          live: 1, the newest frame            and all before it are done
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from trt_blendmask.runtime.sources import Source
from trt_blendmask.structures import Frame

R = TypeVar("R")
DEPTH = 2  # frames of a file that are read ahead (or a whole batch), and results that may wait for the sinks


@dataclass(frozen=True)
class Ticket:
    """A frame that was taken: its place in the order of results, and which source it is of."""

    number: int
    source: int
    frame: Frame


class Flow(Generic[R]):
    """Hands frames to whoever is free, and results on in order.

    Frames of a live source are dropped only before they are taken: what is taken comes out, unless the run fails.

    Attributes:
        dropped: of each source: frames that made place for newer ones here, or were `too_old`; only of live ones.
        error: the first that came up in a stage; the results before it still come out.
        source_error: the first with which a source ended.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        threads: int,
        max_frames: int | None = None,
        too_old: Callable[[Frame], bool] = lambda _: False,
        batch: int = 1,
    ) -> None:
        """`threads` will each `take` up to `batch` frames at a time."""
        self.dropped = [0] * len(sources)
        self.error: BaseException | None = None
        self.source_error: BaseException | None = None
        self._sources, self._busy, self._too_old = sources, threads * batch, too_old
        self._batch, self._depth = batch, max(DEPTH, batch)
        self._left = max_frames
        self._changed = threading.Condition()
        self._places: list[deque[Frame]] = [deque() for _ in sources]
        self._reading = len(sources)
        self._turn = 0  # which source comes first next time
        self._taken = self._given = 0  # numbers of the next ticket and of the next result
        self._done: dict[int, R | None] = {}
        self._end: int | None = None  # number of the first ticket that will have no result

    def offer(self, source: int, frame: Frame) -> bool:
        """Bring a frame; waits for room where the source is not live. False: nobody wants any more."""
        with self._changed:
            place = self._places[source]
            if self._sources[source].live:
                self.dropped[source] += len(place)
                place.clear()
            self._changed.wait_for(lambda: len(place) < self._depth or self.is_over)
            if self.is_over:
                return False
            place.append(frame)
            self._changed.notify_all()
            return True

    def read_out(self, error: BaseException | None = None) -> None:
        """One source is at its end, or broke for good; the others go on."""
        with self._changed:
            if not self.is_over:  # else it was closed while it read
                self.source_error = self.source_error or error
            self._reading -= 1
            self._changed.notify_all()

    def take(self) -> list[Ticket]:
        """The next frames, a batch at most, of the sources in turn: as many as are there as soon as there is one and a
        slot for its result. None of them: there are no more."""
        with self._changed:
            tickets: list[Ticket] = []
            while not self.is_over and len(tickets) < self._batch:
                source = self._next_source()
                if source is None:
                    if tickets or not (self._reading or any(self._places)):
                        break
                    self._changed.wait()
                    continue
                frame = self._places[source].popleft()
                self._changed.notify_all()
                if self._sources[source].live and self._too_old(frame):
                    self.dropped[source] += 1
                    continue
                tickets.append(Ticket(self._taken, source, frame))
                self._taken, self._turn = self._taken + 1, source + 1
            return tickets

    def done(self, ticket: Ticket, result: R | None) -> None:
        """What became of a frame that was taken; None: nothing, it is left out."""
        with self._changed:
            self._done[ticket.number] = result
            self._changed.notify_all()

    def next_result(self) -> R | None:
        """The next result in order, as soon as it is done; None: there are no more."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._given in self._done or self._is_finished)
                if self._given not in self._done or self._given == self._end:
                    return None
                if (result := self._done[self._given]) is not None:
                    return result
                self._leave_behind()

    def written(self) -> None:
        """The result returned last by `next_result` has been written: free its slot."""
        with self._changed:
            self._leave_behind()

    def fail(self, error: BaseException, ticket: Ticket | None = None) -> None:
        """End all with `error`; results before `ticket` still come out, or none where there is no ticket."""
        with self._changed:
            self.error = self.error or error
            self._finish(self._given if ticket is None else ticket.number)

    def stop(self) -> None:
        """Take no more frames; what was taken still comes out."""
        with self._changed:
            self._finish(self._taken)

    def abandon(self, error: BaseException | None = None) -> None:
        """As `stop`, and wait for nothing that is not done by now."""
        with self._changed:
            self.error = self.error or error
            self._finish(next(n for n in range(self._given, self._taken + 1) if n not in self._done))

    @property
    def is_over(self) -> bool:
        """Whether no frame will be taken any more."""
        return self._end is not None or self._taken == self._left

    @property
    def _is_finished(self) -> bool:
        if self._given == self._end:
            return True
        no_more = self.is_over or not (self._reading or any(self._places))
        return no_more and self._given == self._taken

    def _leave_behind(self) -> None:
        del self._done[self._given]
        self._given += 1
        self._changed.notify_all()

    def _finish(self, end: int) -> None:
        end = max(end, self._given)  # what was given cannot be taken back
        self._end = end if self._end is None else min(end, self._end)
        self._changed.notify_all()

    def _next_source(self) -> int | None:
        any_live = any(source.live for source in self._sources)  # the same room for all, or files would starve them
        if self._taken - self._given < self._busy + (1 if any_live else DEPTH):
            for step in range(len(self._sources)):
                source = (self._turn + step) % len(self._sources)
                if self._places[source]:
                    return source
        return None
