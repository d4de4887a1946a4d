"""Where the time goes, by part of BlendMask: a stacked bar for each model, and the same as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from trt_blendmask.html_page import html_table, svg, text, ticks
from trt_blendmask.profiler.layers.parts import all_parts, by_part
from trt_blendmask.profiler.page.drawing import part_colour, shortened, tick_texts
from trt_blendmask.profiler.report import LayerProfile, ModelProfile
from trt_blendmask.profiler.words import ms_text

Profiles = Sequence[tuple[str, LayerProfile]]  # labels of models with what is known of their layers
_ROW, _TALL = 52, 26


def parts_svg(profiles: Profiles, width: int) -> str:
    """A bar for each model, its parts in the order of computation."""
    return stacked_svg([(label, by_part(profile)) for label, profile in profiles], width)


def inside_network(model: ModelProfile) -> dict[str, float]:
    """Milliseconds of what one frame does in the network, in order: the copies of a GPU, and between them the parts
    where layers are known, or else the computation as one.
    """
    seen = {key: model.distribution(key) for key in ("h2d", "compute", "d2h")}
    before, whole, after = ({key: found.median_ms} if found else {} for key, found in seen.items())
    return {**before, **(by_part(model.layers) if model.layers else whole), **after}


def stacked_svg(bars: Sequence[tuple[str, dict[str, float]]], width: int) -> str:
    """A bar for each title, of milliseconds by part."""
    sums = [sum(pieces.values()) for _, pieces in bars]
    most = ticks(max(sums))
    left, right, height = 4, width - 12, _ROW * len(bars) + 26

    def x_of(ms: float) -> float:
        return left + (right - left) * ms / most[-1]

    parts = []
    for row, ((title, pieces), total) in enumerate(zip(bars, sums, strict=True)):
        top, at = _ROW * row + 18, 0.0
        parts.append(text(left, top - 5, f"{shortened(title, width - 80)}: {ms_text(total)} ms", "start", "name"))
        for part, ms in pieces.items():
            x, wide = x_of(at), x_of(at + ms) - x_of(at)
            words = f"<title>{escape(f'{part}: {ms_text(ms)} ms, {ms / max(total, 1e-9):.1%}')}</title>"
            fill = f'style="fill:{part_colour(part)}"'
            parts.append(f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{_TALL}" {fill}>{words}</rect>')
            name = part.rpartition(".")[2]
            if wide > 6.2 * len(name) + 4:
                parts.append(text(x + wide / 2, top + _TALL / 2 + 4, name, "middle", "on"))
            at += ms
    parts += [f'<path class="axis" d="M{x_of(mark):.1f} {height - 20}v5"/>' for mark in most]
    parts += tick_texts(most, x_of, height - 4, "ms")
    return svg(width, height, "Milliseconds of each part", parts)


def parts_table(profiles: Profiles) -> str:
    """Milliseconds and share of each part, then reformats, the sum of the layers, the whole run and what is between."""
    heads = ["part", *(f"{label}, ms" for label, _ in profiles)]
    columns = [by_part(profile) for _, profile in profiles]
    rows = [
        (
            part,
            *(_cell(column.get(part), profile.sum_ms) for column, (_, profile) in zip(columns, profiles, strict=True)),
        )
        for part in all_parts([profile for _, profile in profiles])
    ]
    rows.append(("all", *(ms_text(profile.sum_ms) for _, profile in profiles)))
    rows.append(("of these, reformats and copies", *(_reformats(profile) for _, profile in profiles)))
    rows.append(("whole run", *(ms_text(profile.whole_ms) if profile.whole_ms else "" for _, profile in profiles)))
    rows.append(("not in any layer", *(f"{profile.gap:.1%}" if profile.whole_ms else "" for _, profile in profiles)))
    return f'<div class="numbers">{html_table(heads, rows)}</div>'


def _cell(ms: float | None, whole_ms: float) -> str:
    return "" if ms is None else f"{ms_text(ms)} ({ms / max(whole_ms, 1e-9):.1%})"


def _reformats(profile: LayerProfile) -> str:
    found = [layer.ms for layer in profile.layers if layer.is_reformat]
    return f"{len(found)}: {ms_text(sum(found))}" if found else "none"
