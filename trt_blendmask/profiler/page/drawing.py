"""What the drawings of the page share: axes, colours of models and of parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from trt_blendmask.html_page import text, ticks

SERIES = 6  # colours .c0 ... .c5

# Hue and saturation of each part; its finer parts differ in lightness. Letters on them are dark on any page.
_HUES = {
    "backbone": (212, 58),
    "fpn": (188, 42),
    "towers": (30, 68),
    "predictors": (50, 62),
    "basis": (135, 34),
    "top_layer": (268, 48),
    "selection": (340, 55),
    "tail": (8, 58),
    "h2d": (92, 40),  # copies of a GPU
    "d2h": (92, 40),
}


def part_colour(part: str) -> str:
    """CSS colour of a part."""
    family, _, finer = part.partition(".")
    if family not in _HUES:
        return "hsl(220 8% 66%)"
    hue, saturation = _HUES[family]
    return f"hsl({hue} {saturation}% {58 + 5 * (sum(map(ord, finer)) % 6)}%)"


def legend(parts: Sequence[str]) -> str:
    """Coloured squares with names."""
    chips = "".join(f'<span><i style="background:{part_colour(p)}"></i>{escape(p)}</span>' for p in parts)
    return f'<p class="legend">{chips}</p>'


def between(low: float, high: float) -> list[float]:
    """Round numbers from `low` or the next below it to `high` or the next above."""
    step = ticks(max(high - low, 1e-4 * abs(high), 1e-9))[1]  # of less, two marks of large numbers would be equal
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(k * step, 9) for k in range(first, max(last, first + 1) + 1)]


def powers(low: float, high: float) -> list[float]:
    """Powers of ten from the one at or below `low` to the one at or above `high`; both above 0."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**k for k in range(first, max(last, first + 1) + 1)]


def shortened(words: str, width: float) -> str:
    """So much of `words` as fits into `width` units; their end tells more than their beginning."""
    fits = max(1, int(width / 6))
    return words if len(words) <= fits else f"…{words[1 - fits :]}" if fits > 3 else ""


def tick_texts(values: Sequence[float], x_of: Callable[[float], float], y: float, unit: str) -> list[str]:
    """Numbers below an axis from edge to edge, `unit` after the last."""
    first, *inner, last = values
    texts = [text(x_of(value), y, f"{value:g}", "middle") for value in inner]
    return [text(x_of(first) - 3, y, f"{first:g}", "start"), *texts, text(x_of(last) + 8, y, f"{last:g} {unit}", "end")]
