"""What the command line prints: results on standard output, errors on standard error, colour only on a terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from trt_blendmask.layout import printable
from trt_blendmask.redact import without_secrets


@dataclass(frozen=True)
class Console:
    """Verbosity: -1 errors only (-q), 0 results, 1 also how they came about (-v)."""

    verbosity: int = 0

    @property
    def shows_progress(self) -> bool:
        """Whether a moving bar on standard error would be seen and is wanted."""
        return self.verbosity >= 0 and _is_terminal(sys.stderr)

    @property
    def width(self) -> int:
        """Columns of the terminal that results go to; 0: none, as into a pipe or a file."""
        return shutil.get_terminal_size().columns if _is_terminal(sys.stdout) else 0

    def say(self, text: str) -> None:
        if self.verbosity >= 0:
            _print(text, sys.stdout)

    def detail(self, text: str) -> None:
        if self.verbosity >= 1:
            _print(text, sys.stdout)

    def note(self, text: str) -> None:
        """What happens while results are still being made; they may go to standard output, so it does not."""
        if self.verbosity >= 0:
            with contextlib.suppress(OSError):
                _print(text, sys.stderr)

    def error(self, exit_code: int, message: str) -> None:
        """One line, whatever the names in `message` hold: control characters are spelt out, endless ones cut, and no
        password shown of an address that was typed in the place of something else."""
        message = without_secrets(message)
        short = message if len(message) <= 1000 else f"{message[:600]} ... {message[-300:]}"
        line = printable(short)
        with contextlib.suppress(OSError):  # the terminal is gone: the exit code still tells
            _print(f"{_red(f'error[{exit_code}]', sys.stderr)}: {line}", sys.stderr)


def hold_standard_files() -> None:
    """Open what is closed of the files 0, 1 and 2, or an output would get such a number and what libraries print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


@contextlib.contextmanager
def only_our_words() -> Iterator[None]:
    """While it lasts, what C libraries print on file 2 (libpng, libjpeg) is lost; `sys.stderr` still gets there.

    Nothing happens where `sys.stderr` is not file 2: a program that calls `main` has its own ideas then.
    """
    own, number = sys.stderr, None
    with contextlib.suppress(OSError, ValueError, AttributeError):  # None, closed, or no file at all
        number = own.fileno()
    if number != 2:
        yield
        return
    kept = os.fdopen(os.dup(2), "w", buffering=1, encoding=own.encoding, errors=own.errors)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        own.flush()
        os.dup2(nowhere, 2)
        sys.stderr = kept
        yield
    finally:
        sys.stderr = own
        os.dup2(kept.fileno(), 2)
        os.close(nowhere)
        with contextlib.suppress(OSError):  # the terminal is gone
            kept.close()


def _print(text: str, out: TextIO | None) -> None:
    if out is not None:  # None: the caller has closed it
        encoding = out.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)


def _red(text: str, out: TextIO | None) -> str:
    return f"\033[1;31m{text}\033[0m" if _is_terminal(out) and not os.environ.get("NO_COLOR") else text


def _is_terminal(out: TextIO | None) -> bool:
    return out is not None and out.isatty() and os.environ.get("TERM") != "dumb"
