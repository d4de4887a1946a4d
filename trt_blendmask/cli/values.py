"""What an option's text may be; argparse turns the errors into one line and exit code 2."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from trt_blendmask.defaults import GATES


def size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HxW in pixels, as 288x512, got '{text}'") from None
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(f"expected sizes above 0, got '{text}'")
    return height, width


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{text}'")
    return int(text)


def output(text: str) -> Path:
    """A file or folder to write."""
    if text == "-":
        raise argparse.ArgumentTypeError(
            "expected a file or folder to write, got '-': standard output is for 'run --json' alone"
        )
    return Path(text)


def duration(least: str, most: str) -> Callable[[str], float]:
    """Of a time within these bounds, the seconds; a bare number is seconds already."""
    units = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    low, high = (_scaled(bound, units, "", 0.0, math.inf) for bound in (least, most))
    return lambda text: _scaled(text, units, f"a time from {least} to {most}, as 500ms, 3s, 10m or 1h", low, high)


def latency(text: str) -> float:
    """Seconds; a bare number could as well be milliseconds."""
    if re.fullmatch("[0-9.]+", text):
        raise argparse.ArgumentTypeError(f"expected a time with its unit, as {text}ms or {text}s, got '{text}'")
    return duration("1ms", "60s")(text)


def percentiles(text: str) -> tuple[float, ...]:
    """Ranks, ascending."""
    try:
        ranks = {float(part) for part in text.split(",")}
    except ValueError:
        ranks = {-1.0}
    if not all(0 < rank < 100 for rank in ranks):
        raise argparse.ArgumentTypeError(f"expected numbers between 0 and 100, as 50,90,95,99, got '{text}'")
    return tuple(sorted(ranks))


def region(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (count(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"expected x,y,width,height in pixels, as 0,200,1280,400, got '{text}'"
        ) from None
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f"expected a width and a height above 0, got '{text}'")
    return x, y, width, height


def names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def amount(text: str) -> int:
    """Bytes."""
    units = {"MB": 1e6, "GB": 1e9, "TB": 1e12}
    return round(_scaled(text, units, "an amount from 1MB on, as 500MB or 20GB", 1e6, 1e18))


def _scaled(text: str, units: dict[str, float], expected: str, least: float, most: float) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([A-Za-z]*)", text)
    scales = {unit.lower(): scale for unit, scale in units.items()}
    value = float(match[1]) * scales.get(match[2].lower(), math.nan) if match else math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
    return value


def fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got '{text}'")
    return value


def points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected points from 0 to 100, got '{text}'")
    return value


def batches(text: str) -> tuple[int, int, int]:
    try:
        smallest, usual, largest = (positive(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(f"expected three batch sizes, as 1,1,4, got '{text}'") from None
    return smallest, usual, largest


def capabilities(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def bounds(text: str) -> dict[str, float]:
    """Least values by name."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name.strip() not in GATES or not 0 <= value <= 1:
            expected = f"{', '.join(GATES)} with a number from 0 to 1, as f1=0.97,mask_iou=0.97"
            raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
        found[name.strip()] = value
    return found


def short_and_long(text: str) -> tuple[int, int]:
    """Pixels of the short side, and at most of the long one."""
    try:
        short, long = (positive(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        short, long = 1, 0
    if short > long:
        raise argparse.ArgumentTypeError(
            f"expected two sizes in pixels, the short side first, as 800,1333, got '{text}'"
        )
    return short, long
