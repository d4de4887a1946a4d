"""The bar on the terminal while an engine is built."""

from __future__ import annotations

import sys

from trt_blendmask.console import Console
from trt_blendmask.engines.progress import Progress
from trt_blendmask.terminal_bar import TerminalBar

_ALMOST = 0.99  # a build that takes longer than the last one is not done


class BuildBar(TerminalBar):
    """Phase, time, what is left of it and memory on standard error; notes on standard output; with -v the phases too.

    Attributes:
        peak_mib: most memory that the build has held, as far as is known.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self.peak_mib = 0
        if console.shows_progress:
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}{task.description}"),
            )
            bars = Terminal(file=sys.stderr)
            redirect = console.width > 0  # a note for a pipe goes into the pipe
            self._bar = Bar(*columns, console=bars, transient=True, refresh_per_second=5, redirect_stdout=redirect)
            self._task = self._bar.add_task("", total=None, left="")

    def update(self, progress: Progress) -> None:
        """Show it."""
        self.peak_mib = max(self.peak_mib, progress.peak_mib)
        if progress.note:
            self._console.say(progress.note)
            return
        if progress.log:
            self._console.detail(f"{progress.seconds:7.1f} s  TensorRT: {progress.log}")
            return
        if progress.phase and progress.phase != self._phase:
            self._phase = progress.phase
            self._console.detail(f"{progress.seconds:7.1f} s  {progress.phase}")
        if self._bar is not None:
            steps = f" {progress.done}/{progress.steps}" if progress.steps else ""
            left, share = "", None
            if progress.total_seconds:
                share = min(progress.seconds / progress.total_seconds, _ALMOST)
                left = f"about {max(1.0, progress.total_seconds - progress.seconds):.0f} s left  "
            words = f"{self._phase}{steps}  {self.peak_mib} MiB"
            self._bar.update(self._task, completed=share or 0, total=share and 1, description=words, left=left)
