"""Histograms with the chosen threshold, and a curve, drawn as SVG: text that a page holds and a browser sharpens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from trt_blendmask.calibrate.histogram import Counts

_W, _H = 340, 150  # of one histogram
_LEFT, _TOP, _BOTTOM = 34, 34, 22
_BARS = 120
_FITS = 52  # letters of a name; its end tells more than its beginning

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #677084; --line: #d6dae2; --fill: #6f9fd8; --cut: #d8483e;
  --good: #2b8a57; --paper: #ffffff; --wash: #f5f6f9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --dim: #97a1b5; --line: #39414f; --fill: #5d8fca;
  --cut: #ff7a6b; --good: #58c08a; --paper: #14181f; --wash: #1c222c } }
svg text { font: 11px system-ui, sans-serif; fill: var(--dim) }
svg .name { font-weight: 600; fill: var(--ink) }
svg .axis { stroke: var(--line); stroke-width: 1 }
svg .bars { fill: var(--fill) }
svg .clipped { fill: var(--cut) }
svg .cut { stroke: var(--cut); stroke-width: 1.5 }
svg .path { fill: none; stroke: var(--fill); stroke-width: 2 }
svg .dot { fill: var(--fill) }
svg .weak { fill: var(--paper); stroke: var(--fill); stroke-width: 1.5 }
svg .chosen { fill: var(--good) }
"""


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


def curve_svg(points: Sequence[CurvePoint], x_title: str, y_title: str) -> str:
    """Points, not below 0, joined in their order; both axes begin at 0."""
    width, height, left, top, bottom = 720, 380, 62, 18, 44
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


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts as a table; a row that begins with "all" is bold."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr{' class=all' if row[0] == 'all' else ''}>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def page(title: str, body: str) -> str:
    """A whole HTML page that needs no other file."""
    style = f"""{STYLE}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1080px;
  margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--line) }}
th {{ font-weight: 600; color: var(--dim) }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0 }}
.all td {{ font-weight: 600 }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 14px }}
svg {{ max-width: 100%; height: auto }}
.grid svg {{ background: var(--wash); border-radius: 6px; padding: 8px; width: 100%;
  box-sizing: border-box }}
details {{ margin: 1rem 0 }}
@media print {{ svg, tr {{ break-inside: avoid }} }}
summary {{ cursor: pointer }}"""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{style}</style>\n'
        f"<h1>{escape(title)}</h1>\n{body}\n</html>\n"
    )


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


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to `most` or the next beyond it."""
    least = max(most, 1e-3) / 5
    power = 10.0 ** math.floor(math.log10(least))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= least * 0.999)
    return [round(k * step, 9) for k in range(math.ceil(most / step - 1e-6) + 1)] if most > 0 else [0.0, step]


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    klass = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{klass}>{escape(words)}</text>'


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
