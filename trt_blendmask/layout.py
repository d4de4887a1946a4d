"""Words in columns: for people at a terminal of some width, for `grep` one fact per line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

MAX_NAME = 80


def printable(text: str, most: int = 0) -> str:
    """`text` with control characters spelt out, which a name in a file may hold to write over the terminal; cut to
    `most` characters where that is above 0."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return f"{shown[: most - 4]} ..." if 0 < most < len(shown) else shown


def amount(number: float, unit: str) -> str:
    """ "4.4 MB", "3.19 GB": three digits and a prefix."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} T{unit}"


def counted(number: int, thing: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def labelled(facts: Iterable[tuple[str, str]], width: int) -> list[str]:
    """A line per fact, its words in one column; those beyond `width` (0: no limit) go on below."""
    facts = list(facts)
    column = max((len(label) for label, _ in facts), default=0) + 2
    lines: list[str] = []
    for label, words in facts:
        lines += wrapped(words, width, f"{label:{column}}", " " * column)
    return lines


def wrapped(words: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """`words` in lines of at most `width` characters (0: in one line); nothing is cut, a long path stands out."""
    shown = printable(words)
    if not width:
        return [f"{first}{shown}".rstrip()]
    return textwrap.wrap(
        shown,
        max(width, len(first) + 20),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def columns(rows: Iterable[Iterable[str]]) -> list[str]:
    """Rows of words, each column as wide as its widest word."""
    cells = [[printable(cell, MAX_NAME) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
