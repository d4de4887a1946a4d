"""What ends a command from outside: one KeyboardInterrupt for Ctrl-C, `kill`, a shutdown and a closed terminal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trt_blendmask.errors import STOPPED

_LATER_S = 0.05
_USUAL = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
_asked, _reminds = threading.Event(), threading.Event()  # amid an import; by `_remind`, not by a person


@contextmanager
def clean_stops() -> Iterator[None]:
    """While entered, SIGTERM and SIGHUP end the work as SIGINT does, so that files are finished or removed, and none
    amid an import. What nohup or the host program has set stays."""
    taken = {}
    if threading.current_thread() is threading.main_thread():
        numbers = {getattr(signal, name): usual for name, usual in _USUAL.items() if hasattr(signal, name)}
        before = {number: signal.getsignal(number) for number in numbers}
        taken = {number: handler for number, handler in before.items() if handler == numbers[number]}
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal by KeyboardInterrupt, amid an import only after it; who asks twice gets no import to its end.

    One that breaks off leaves a library half made, which crashes or hides the KeyboardInterrupt in an error of its own.
    """
    if not _imports(frame):
        _asked.clear()
        raise KeyboardInterrupt
    if _asked.is_set() and not _reminds.is_set():
        os._exit(STOPPED)
    _asked.set()
    _reminds.clear()
    timer = threading.Timer(_LATER_S, _remind, [number])
    timer.daemon = True
    timer.start()


def _remind(number: int) -> None:
    _reminds.set()
    signal.pthread_kill(threading.main_thread().ident or 0, number)  # others would not wake what it waits for


def _imports(frame: FrameType | None) -> bool:
    """Whether the command, not who called it, is in the midst of an import."""
    found = False
    while frame is not None and frame.f_globals.get("__name__") != "trt_blendmask.cli":
        found = found or frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found and frame is not None
