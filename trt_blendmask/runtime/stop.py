"""Ctrl-C, `kill`, a shutdown: the first one asks a run to stop, the second one ends the program at once.

A terminal that closes sends SIGHUP twice, from its shell and from the kernel: that asks once.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from trt_blendmask.errors import STOPPED
from trt_blendmask.interrupts import interrupt

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StopSignals:
    """While entered, replaces `KeyboardInterrupt`, which could hit the main thread in the middle of anything.

    Signals that would raise it are taken over, others keep their handlers; outside the main thread there are none.

    Attributes:
        asked: whether one has come.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
            raising = (signal.default_int_handler, interrupt)
            taken = [number for number in numbers if signal.getsignal(number) in raising]
            self._before = {number: signal.signal(number, self._on_signal) for number in taken}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number != getattr(signal, "SIGHUP", None):
            _show_cursor()
            os._exit(STOPPED)  # whatever hangs, hangs in threads that would be waited for
        self.asked = True


def _show_cursor() -> None:
    """What the progress bar has hidden, and will not show again itself; a terminal that takes nothing is left alone."""
    with suppress(OSError):
        if os.isatty(2) and select.select([], [2], [], 0)[1]:
            os.write(2, b"\x1b[?25h")
