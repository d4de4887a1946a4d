"""Clocks, temperatures and watts while it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trt_blendmask.html_page import svg, text, ticks
from trt_blendmask.profiler.page.drawing import SERIES, between, tick_texts
from trt_blendmask.profiler.report import Readings

_W, _H = 350, 170  # and what the names take
_UNITS = {"MHz": "Clocks, MHz", "C": "Temperatures, °C", "W": "Power, W"}
_MOST_POINTS = 400
Series = Mapping[str, list[float | None]]


def conditions_svgs(readings: Readings) -> list[str]:
    """A drawing for each unit."""
    units: dict[str, dict[str, list[float | None]]] = {}
    for name, values in readings.series.items():
        if any(value is not None for value in values):
            units.setdefault(name.rpartition(" ")[2], {})[name] = values
    return [_drawing(_UNITS.get(unit, unit), readings.at_s, series) for unit, series in units.items()]


def _drawing(title: str, at_s: Sequence[float], series: Series) -> str:
    names = 14 * ((len(series) + 1) // 2)
    height = _H + names
    left, right, top, floor = 40, _W - 12, 30 + names, height - 24
    known = [value for values in series.values() for value in values if value is not None]
    xs, ys = ticks(max(at_s[-1], 1e-3)), between(min(known), max(known))

    def x_of(seconds: float) -> float:
        return left + (right - left) * seconds / xs[-1]

    def y_of(value: float) -> float:
        return floor - (floor - top) * (value - ys[0]) / (ys[-1] - ys[0])

    parts = [text(2, 12, title, "start", "name"), *tick_texts(xs, x_of, height - 8, "s")]
    for tick in ys:
        parts.append(f'<path class="axis" d="M{left} {y_of(tick):.1f}H{right}"/>')
        parts.append(text(left - 5, y_of(tick) + 4, f"{tick:g}", "end"))
    for k, (name, values) in enumerate(series.items()):
        path, pen = "", "M"
        for at, value in list(zip(at_s, values, strict=False))[:: max(1, len(values) // _MOST_POINTS)]:
            path += "" if value is None else f"{pen}{x_of(at):.1f} {y_of(value):.1f}"
            pen = "M" if value is None else "L"
        x, y = 2 + (_W // 2) * (k % 2), 27 + 14 * (k // 2)
        line = f'<path class="line s{k % SERIES}" d='
        parts.append(f'{line}"{path}"/>{line}"M{x} {y - 4}h14"/>')
        parts.append(text(x + 18, y, name.rpartition(" ")[0][-24:], "start"))
    return svg(_W, height, title, parts)
