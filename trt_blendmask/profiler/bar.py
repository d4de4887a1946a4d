"""The bar on the terminal while models are profiled."""

from __future__ import annotations

import sys

from trt_blendmask.terminal_bar import TerminalBar


class ProfileBar(TerminalBar):
    """What is being done and how much of it is, on standard error; does nothing where `shown` is False."""

    def __init__(self, shown: bool) -> None:
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
            # Few refreshes: drawing takes the very cores that are being measured.
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True, refresh_per_second=2)
            self._task = self._bar.add_task("", total=1)

    def update(self, words: str, share: float) -> None:
        """`share` of what `words` say is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=share, description=words)
