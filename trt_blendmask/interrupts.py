"""What ends a command from outside: one KeyboardInterrupt for Ctrl-C, `kill`, a shutdown and a closed terminal."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_LATER_S = 0.05
_USUAL = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
_waiting = threading.Event()


def stop_cleanly_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the work as SIGINT does, so that files are finished or removed, and none amid an
    import. What nohup or the host program has set stays."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name, usual in _USUAL.items():
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == usual:
            signal.signal(number, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal by KeyboardInterrupt, amid an import only after it.

    One that breaks off leaves a library half made, which crashes or hides the KeyboardInterrupt in an error of its own.
    """
    if not _imports(frame):
        raise KeyboardInterrupt
    if not _waiting.is_set():
        _waiting.set()
        timer = threading.Timer(_LATER_S, _again, [number])
        timer.daemon = True
        timer.start()


def _again(number: int) -> None:
    _waiting.clear()
    signal.pthread_kill(threading.main_thread().ident or 0, number)  # others would not wake what it waits for


def _imports(frame: FrameType | None) -> bool:
    """Whether the command, not who called it, is in the midst of an import."""
    while frame is not None and frame.f_globals.get("__name__") != "trt_blendmask.cli":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
