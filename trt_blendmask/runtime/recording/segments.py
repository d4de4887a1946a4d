"""Names of the files of one recording, and which of them go when there are too many."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path


def segment(path: Path, wall_s: float) -> Path:
    """`path` with the time in its name, in UTC: belt.mp4 becomes belt-20260131T120000Z.mp4."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_s))
    return path.with_name(f"{path.stem}-{stamp}{path.suffix}")


def next_part(path: Path) -> Path:
    """The first of belt.part2.mp4, belt.part3.mp4, ... that is not there yet."""
    return next(part for n in count(2) if not (part := path.with_name(f"{path.stem}.part{n}{path.suffix}")).exists())


def free(path: Path) -> Path:
    """`path`, or its next part where that is there already."""
    return next_part(path) if path.exists() else path


def segments(path: Path) -> list[Path]:
    """The segments of the recording `path` that are there, those of earlier runs included, oldest first."""
    form = re.compile(rf"{re.escape(path.stem)}-(\d{{8}}T\d{{6}}Z)(?:\.part(\d+))?{re.escape(path.suffix)}")
    found = ((match, file) for file in path.parent.iterdir() if (match := form.fullmatch(file.name)))
    return [file for match, file in sorted(found, key=lambda pair: (pair[0][1], int(pair[0][2] or 1)))]


def prune(path: Path, keep_bytes: int, own: Sequence[Path]) -> list[Path]:
    """Delete the oldest segments of `path` until the rest is at most so large. Those deleted.

    First go those of earlier runs, then `own`, this run's in the order in which they were begun, for a clock that is
    behind or was set back makes their names say otherwise. The last of `own` is being recorded, and stays.

    Raises:
        OSError: one cannot be deleted.
    """
    begun = {file: number for number, file in enumerate(own)}
    files = sorted(segments(path), key=lambda file: begun.get(file, -1))
    sizes = [file.stat().st_size for file in files]
    gone: list[Path] = []
    while len(files) - len(gone) > 1 and sum(sizes[len(gone) :]) > keep_bytes:
        files[len(gone)].unlink()
        gone.append(files[len(gone)])
    return gone
