"""How long the stages take, and the line on the terminal that says so while frames run."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

STAGES = ("decode", "letterbox", "network", "collect", "observe", "paste", "draw", "encode")  # observe: of `calibrate`


class StageClock:
    """Sums of seconds per stage, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, stage: str, one_ms: dict[str, float] | None = None) -> Iterator[None]:
        """Add the body's time to that of `stage`, and note it in `one_ms`, the milliseconds of a single frame."""
        began = time.perf_counter()
        yield
        spent = time.perf_counter() - began
        with self._lock:
            self._seconds[stage] += spent
        if one_ms is not None:
            one_ms[stage] = 1e3 * spent

    def mean_ms(self, frames: int) -> dict[str, float]:
        """Mean milliseconds per frame of the stages that ran, in their order."""
        return {stage: 1e3 * seconds / max(1, frames) for stage, seconds in self._seconds.items() if seconds}


def spell(mean_ms: dict[str, float]) -> str:
    """Stage times in words: "decode 2.0, network 41.3 ms"."""
    return ", ".join(f"{stage} {ms:.1f}" for stage, ms in mean_ms.items()) + " ms"


class ProgressLine:
    """A progress bar on standard error; does nothing where `shown` is False."""

    def __init__(self, shown: bool, total: int | None) -> None:
        self._bar: Progress | None = None
        self._began = time.perf_counter()
        self._done = 0
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
            note = TextColumn("{task.fields[note]}")
            self._bar = Progress(*columns, note, console=Console(file=sys.stderr), transient=True, refresh_per_second=5)
            self._task = self._bar.add_task("frames", total=total, note="")
            self._bar.start()

    def step(self, clock: StageClock) -> None:
        """One frame more is done."""
        self.show(self._done + 1, clock)

    def show(self, done: int, clock: StageClock) -> None:
        """So many frames are done."""
        self._done = done
        if self._bar is not None and done:
            fps = done / (time.perf_counter() - self._began)
            self._bar.update(self._task, completed=done, note=f"{fps:.1f} FPS  {spell(clock.mean_ms(done))}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
