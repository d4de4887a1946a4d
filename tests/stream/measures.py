"""What the long tests measure: the resources of a process, and whether a series of numbers grows."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import av
import numpy as np


def resources(pid: int | str = "self") -> dict[str, float]:
    """Threads, open files, and megabytes of memory: resident, and what no other process shares."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    private = [
        int(line.split()[1]) for line in (process / "smaps_rollup").read_text().splitlines() if "Private_" in line
    ]
    return {
        "threads": float(status["Threads"]),
        "files": float(sum(1 for _ in (process / "fd").iterdir())),
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024, 2),
        "uss_mb": round(sum(private) / 1024, 2),
    }


def theil_sen(times: list[float], values: list[float]) -> tuple[float, float, float]:
    """The median slope of all pairs of points, and its 95 % interval (after Sen, 1968): one outlier says nothing."""
    x, y = np.array(times), np.array(values)
    i, j = np.triu_indices(len(x), 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    n = len(x)
    half_width = 1.96 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18) / 2
    low, high = len(slopes) / 2 - half_width, len(slopes) / 2 + half_width
    ends = np.clip(np.rint([low, high]).astype(int), 0, len(slopes) - 1)
    return float(np.median(slopes)), float(slopes[ends[0]]), float(slopes[ends[1]])


def slope(times: list[float], values: list[float], per_s: float, digits: int = 3) -> dict[str, float]:
    """`theil_sen` per so many seconds, for a report."""
    middle, low, high = (round(value * per_s, digits) for value in theil_sen(times, values))
    return {"slope": middle, "low": low, "high": high}


def machine() -> dict[str, Any]:
    """Where the numbers come from, and how busy it was."""
    ffmpeg = ".".join(map(str, av.library_versions["libavformat"]))
    load = round(os.getloadavg()[0], 1)
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": load,
        "av": av.__version__,
        "ffmpeg": ffmpeg,
    }
