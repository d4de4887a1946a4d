"""The C library's heap in a process that runs for a year."""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # in malloc.h of the GNU C library


def share_one_arena() -> None:
    """Let all threads take memory from one arena; before they are many, or the C library has chosen by itself.

    By itself it gives new threads arenas of their own, up to eight per core, and each keeps what its fullest moment
    needed. A run whose camera is reconnected again and again so grows for hours. One arena costs no speed here: what is
    large is not taken from arenas, and what is small comes from each thread's own cache. C libraries without arenas
    have nothing to set; who sets MALLOC_ARENA_MAX knows better.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
