"""When each stage worked on which frame."""

from __future__ import annotations

from html import escape

from trt_blendmask.html_page import html_table, svg, text, ticks
from trt_blendmask.profiler.page.drawing import SERIES, tick_texts
from trt_blendmask.profiler.report import PipelineProfile, Stage
from trt_blendmask.profiler.words import busy, ms_text, rank_text

_LANE, _BAR, _GAP = 20, 16, 7


def waterfall_svg(profile: PipelineProfile, width: int) -> str:
    """A row for each stage, more where it works on several frames at a time; the numbers and colours are frames."""
    ends = [end for stage in profile.stages for _, _, end in stage.spans]
    most = ticks(max(ends))
    left, right = 66, width - 14

    def x_of(ms: float) -> float:
        return left + (right - left) * ms / most[-1]

    parts, y = [], 4
    for stage in profile.stages:
        lanes = _lanes(stage)
        parts.append(text(left - 6, y + _LANE * len(lanes) / 2 + 3, stage.name, "end", "name"))
        for lane in lanes:
            for frame, begin, end in lane:
                x, wide = x_of(begin), max(1.0, x_of(end) - x_of(begin))
                title = f"<title>{escape(f'frame {frame}: {stage.name} {ms_text(end - begin)} ms')}</title>"
                box = f'x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_BAR}"'
                parts.append(f'<rect class="c{frame % SERIES}" {box}>{title}</rect>')
                if wide > 8 + 7 * len(str(frame)):
                    parts.append(text(x + wide / 2, y + 12, str(frame), "middle", "on"))
            y += _LANE
        parts.append(f'<path class="axis" d="M{left} {y}H{right}"/>')
        y += _GAP
    parts += tick_texts(most, x_of, y + 10, "ms")
    return svg(width, y + 16, "When each stage worked on which frame", parts)


def stages_table(profile: PipelineProfile) -> str:
    """Times of the stages, and how busy their threads were."""
    shares, ranks = busy(profile), profile.stages[0].ms.percentiles
    rows = [
        (
            stage.name,
            stage.thread + (f" (of {stage.abreast})" if stage.abreast > 1 else ""),
            *map(ms_text, (stage.ms.min_ms, *(stage.ms.percentiles[rank] for rank in ranks))),
            f"{min(1.0, shares[stage.thread]):.0%}",
        )
        for stage in profile.stages
    ]
    heads = ("stage", "thread", "least, ms", *map(rank_text, ranks), "thread works")
    return f'<div class="numbers">{html_table(heads, rows)}</div>'


def _lanes(stage: Stage) -> list[list[tuple[int, float, float]]]:
    """The spans in as few rows as keep them apart."""
    lanes: list[list[tuple[int, float, float]]] = []
    for span in sorted(stage.spans, key=lambda one: one[1]):
        free = next((lane for lane in lanes if lane[-1][2] <= span[1]), None)
        if free is None:
            lanes.append([span])
        else:
            free.append(span)
    return lanes or [[]]
