"""Histograms with the chosen threshold, and a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from trt_blendmask.calibrate.histogram import Counts
from trt_blendmask.html_page import svg, text, ticks

_W, _H = 340, 150  # of one histogram
_LEFT, _TOP, _BOTTOM = 34, 34, 22
_BARS = 120
_FITS = 52  # letters of a name; its end tells more than its beginning


def histogram_svg(counts: Counts, threshold: float, title: str, note: str) -> str:
    """One tensor: how often which value came (log), where its grid ends, and in another colour what is clipped."""
    edges, heights = _rebinned(counts)
    low, high = float(edges[0]), float(edges[-1])
    logs = np.log10(1 + heights)
    tall = max(float(logs.max()), 1e-9)
    width, floor = _W - _LEFT - 10, _H - _BOTTOM

    def x_of(value: float) -> float:
        return _LEFT + width * (value - low) / (high - low)

    bars: dict[str, list[str]] = {"bars": [], "clipped": []}
    for left, right, log in zip(edges[:-1].tolist(), edges[1:].tolist(), logs.tolist(), strict=True):
        if log > 0:
            kind = "clipped" if left >= threshold or right <= -threshold else "bars"
            y = floor - (floor - _TOP) * log / tall
            bars[kind].append(f"M{x_of(left):.1f} {floor}V{y:.1f}H{x_of(right):.1f}V{floor}Z")
    parts = [f'<path class="{kind}" d="{"".join(paths)}"/>' for kind, paths in bars.items() if paths]
    ends = [end for end in (-threshold, threshold) if low <= end <= high]
    parts += [f'<path class="cut" d="M{x_of(end):.1f} {_TOP - 4}V{floor}"/>' for end in ends]
    parts.append(f'<path class="axis" d="M{_LEFT} {floor}H{_LEFT + width}"/>')
    parts += [text(x_of(v), _H - 7, f"{v:.3g}", anchor) for v, anchor in ((low, "start"), (high, "end"))]
    parts += [text(_LEFT - 4, _TOP + 8, f"1e{tall:.0f}", "end"), text(_LEFT - 4, floor, "1", "end")]
    if 0.15 < (at := (min(threshold, high) - low) / (high - low)) < 0.85:
        parts.append(text(_LEFT + width * at, _H - 7, f"{threshold:.3g}", "middle"))
    name = title if len(title) <= _FITS else f"…{title[1 - _FITS :]}"
    parts += [text(2, 12, name, "start", "name"), text(2, 24, note, "start")]
    return svg(_W, _H, f"{title}: {note}", parts)


@dataclass(frozen=True)
class CurvePoint:
    """`x` and `y` of one step, and what to say of it; the curve passes by the weak ones."""

    x: float
    y: float
    label: str
    chosen: bool = False
    weak: bool = False


def curve_svg(points: Sequence[CurvePoint], x_title: str, y_title: str, width: int) -> str:
    """Points, not below 0, joined in their order; both axes begin at 0."""
    height, left, top, bottom = 380, 62, 18, 44
    xs, ys = [p.x for p in points], [p.y for p in points]
    x_ticks, y_ticks = ticks(max(xs)), ticks(max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        up = (height - bottom - top) * y / y_ticks[-1]
        return left + (width - left - 16) * x / x_ticks[-1], height - bottom - up

    parts = []
    for tick in y_ticks:
        y = place(0, tick)[1]
        parts += [f'<path class="axis" d="M{left} {y:.1f}H{width - 16}"/>', text(left - 6, y + 4, f"{tick:g}", "end")]
    parts += [text(place(tick, 0)[0], height - bottom + 16, f"{tick:g}", "middle") for tick in x_ticks]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (place(p.x, p.y) for p in points if not p.weak))
    parts.append(f'<path class="path" d="M{path}"/>')
    for point in points:
        x, y = place(point.x, point.y)
        kind, radius = ("chosen", 6) if point.chosen else ("weak" if point.weak else "dot", 3.5)
        title = f"<title>{escape(point.label)}</title>"
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{title}</circle>')
    parts.append(text((left + width) / 2, height - 8, x_title, "middle"))
    parts.append(f'<g transform="translate(14 {(height - bottom + top) / 2}) rotate(-90)">')
    parts += [text(0, 0, y_title, "middle"), "</g>"]
    return svg(width, height, f"{y_title} against {x_title}", parts)


def _rebinned(counts: Counts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Edges [n + 1] and counts [n] from the least to the largest value, in about `_BARS` bars; zeros in theirs."""
    both = np.concatenate([counts.negative[::-1], counts.positive])
    middle = len(counts.negative)
    both[middle] += counts.zeros
    used = np.flatnonzero(both)
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (middle, middle + 1)
    step = max(1, -(-(last - first) // _BARS))
    starts = np.arange(first, last, step)
    heights = np.add.reduceat(both[first:last], starts - first)
    return (np.append(starts, starts[-1] + step) - middle) * counts.width, heights
