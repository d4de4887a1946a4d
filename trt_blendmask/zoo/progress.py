"""The bar on the terminal while a file is fetched."""

from __future__ import annotations

import sys

from trt_blendmask.terminal_bar import TerminalBar


class DownloadBar(TerminalBar):
    """Bytes, speed and remaining time on standard error; does nothing where `shown` is False."""

    def __init__(self, shown: bool) -> None:
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

            columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True, refresh_per_second=5)
            self._task = self._bar.add_task("", total=None)

    def update(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes are there; None: nobody knows how many there will be."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
