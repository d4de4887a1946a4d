"""Each layer against what the device can do: multiply-adds per byte, and per second."""

from __future__ import annotations

import math
from html import escape

from trt_blendmask.html_page import NARROW, svg, text
from trt_blendmask.profiler.page.drawing import part_colour, powers, shortened
from trt_blendmask.profiler.report import LayerProfile, Roof
from trt_blendmask.profiler.words import cut

_NAMED, _DOTS = 4, 400  # of the slowest layers


def roofline_svg(label: str, profile: LayerProfile, roof: Roof) -> str:
    """A dot for each layer with multiply-adds, the larger the longer it takes; lines are the roofs. `label`: whose."""
    known = [layer for layer in profile.layers if layer.macs and layer.bytes and layer.ms > 0]
    layers = sorted(known, key=lambda layer: -layer.ms)[:_DOTS]
    dots = [(layer.macs / layer.bytes, layer.macs / layer.ms / 1e6, layer) for layer in layers]
    ridges = [peak / roof.gbytes_per_s for peak in roof.gmacs_per_s.values()]
    xs = powers(min([x for x, _, _ in dots] + ridges) * 0.8, max([x for x, _, _ in dots] + ridges) * 1.25)
    ys = powers(
        min([y for _, y, _ in dots] + [*roof.gmacs_per_s.values()]) * 0.8, max(roof.gmacs_per_s.values()) * 1.25
    )
    left, right, top, floor = 36, NARROW - 10, 26, 260

    def x_of(value: float) -> float:
        return left + (right - left) * math.log10(value / xs[0]) / math.log10(xs[-1] / xs[0])

    def y_of(value: float) -> float:
        return floor - (floor - top) * math.log10(max(value, ys[0]) / ys[0]) / math.log10(ys[-1] / ys[0])

    parts = [text(2, 12, shortened(label, NARROW), "start", "name")]
    parts += [f'<path class="axis" d="M{left} {y_of(y):.1f}H{right}"/>' for y in ys]
    parts += [f'<path class="axis" d="M{x_of(x):.1f} {top}V{floor}"/>' for x in xs]
    parts += [text(left - 5, y_of(y) + 4, f"{y:g}", "end") for y in ys]
    parts += [text(x_of(x), floor + 15, f"{x:g}", "end" if x == xs[-1] else "middle") for x in xs]
    highest = max(roof.gmacs_per_s.values())
    slope_to = highest / roof.gbytes_per_s
    start = max(xs[0], ys[0] / roof.gbytes_per_s)
    parts.append(
        f'<path class="roof" d="M{x_of(start):.1f} {y_of(start * roof.gbytes_per_s):.1f}'
        f'L{x_of(slope_to):.1f} {y_of(highest):.1f}"/>'
    )
    names = []
    for name, peak in roof.gmacs_per_s.items():
        x, y = x_of(peak / roof.gbytes_per_s), y_of(peak)
        parts.append(f'<path class="roof" d="M{x:.1f} {y:.1f}H{right}"/>')
        names.append(text(right, y - 4, f"{name} {peak:.3g} GMAC/s", "end", "note"))
    for x, y, layer in dots:
        words = f"{cut(layer.name)}: {y:.3g} GMAC/s at {x:.3g} MAC/byte, {layer.share:.1%} of the time"
        title = f"<title>{escape(words)}</title>"
        radius = 2.5 + 22 * math.sqrt(layer.share / math.pi)
        fill = f'style="fill:{part_colour(layer.part)}"'
        parts.append(
            f'<circle class="layer" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="{radius:.1f}" {fill}>{title}</circle>'
        )
    for number, (x, y, layer) in enumerate(dots[:_NAMED], 1):
        parts.append(text(x_of(x) + 5, y_of(y) + 9, str(number), "start", "name note"))
        line = f"{number}  {shortened(layer.name, NARROW - 60)}"
        parts.append(text(left, floor + 46 + 15 * number, line, "start"))
    parts += names
    parts.append(text((left + right) / 2, floor + 32, "multiply-adds a byte (GMAC/s upwards)", "middle"))
    return svg(NARROW, floor + 52 + 15 * min(_NAMED, len(dots)), "Layers against the roofs of this device", parts)
