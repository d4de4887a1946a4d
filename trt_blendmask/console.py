"""What the command line prints: results on standard output, errors on standard error, colour only on a terminal."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Console:
    """Verbosity: -1 errors only (-q), 0 results, 1 also how they came about (-v)."""

    verbosity: int = 0

    @property
    def shows_progress(self) -> bool:
        """Whether a moving bar on standard error would be seen and is wanted."""
        return self.verbosity >= 0 and sys.stderr.isatty()

    def say(self, text: str) -> None:
        if self.verbosity >= 0:
            print(text, flush=True)

    def detail(self, text: str) -> None:
        if self.verbosity >= 1:
            print(text, flush=True)

    def error(self, exit_code: int, message: str) -> None:
        print(f"{_red(f'error[{exit_code}]', sys.stderr)}: {message}", file=sys.stderr, flush=True)


def _red(text: str, out: TextIO) -> str:
    if out.isatty() and "NO_COLOR" not in os.environ:
        return f"\033[1;31m{text}\033[0m"
    return text
