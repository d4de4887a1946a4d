"""Distributions of the times of several models, one above the other on one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trt_blendmask.html_page import svg, text
from trt_blendmask.profiler.page.drawing import SERIES, between, shortened, tick_texts
from trt_blendmask.profiler.report import ModelProfile
from trt_blendmask.profiler.words import ms_text, rank_text

_ROW, _TALL, _BARS = 84, 44, 90  # of one model: height, height of its bars, bars of the whole axis


def latency_svg(models: Sequence[ModelProfile], metric: str, percentiles: Sequence[float], width: int) -> str:
    """How often which time came, for each model that has times of `metric`; lines at the percentiles."""
    rows = [(k, model, model.times[metric]) for k, model in enumerate(models) if model.times.get(metric)]
    low = min(min(samples) for _, _, samples in rows)
    high = max(float(np.percentile(samples, 99.5)) for _, _, samples in rows)
    marks = between(low, high)
    left, right, height = 4, width - 12, 22 + _ROW * len(rows)
    edges = np.linspace(marks[0], marks[-1], _BARS + 1)

    def x_of(ms: float) -> float:
        return left + (right - left) * (min(ms, marks[-1]) - marks[0]) / (marks[-1] - marks[0])

    parts = [f'<path class="axis" d="M{x_of(mark):.1f} 18V{height - 18}"/>' for mark in marks]
    for row, (k, model, samples) in enumerate(rows):
        floor = _ROW * (row + 1) - 4
        counts = np.histogram(np.minimum(samples, marks[-1]), edges)[0]
        tops = floor - _TALL * counts / max(1, counts.max())
        bars = [
            f"M{x_of(edges[b]):.1f} {floor}V{tops[b]:.1f}H{x_of(edges[b + 1]):.1f}V{floor}Z"
            for b in np.flatnonzero(counts)
        ]
        found = model.distribution(metric, percentiles)
        assert found is not None
        parts.append(f'<path class="c{k % SERIES}" d="{"".join(bars)}"/>')
        for rank, ms in found.percentiles.items():
            tall = _TALL + 4 if rank == 50 else _TALL * 0.5
            parts.append(f'<path class="mark" d="M{x_of(ms):.1f} {floor}v{-tall:.0f}"/>')
        note = ", ".join(f"{rank_text(rank)} {ms_text(ms)}" for rank, ms in found.percentiles.items())
        beyond = sum(ms > marks[-1] for ms in samples)
        most = f"most {ms_text(found.max_ms)} ms" + (f" ({beyond} beyond the axis)" if beyond else "")
        parts.append(text(left, floor - _TALL - 22, shortened(model.label, right - 170), "start", "name"))
        parts.append(text(right, floor - _TALL - 22, most, "end"))
        parts.append(text(left, floor - _TALL - 8, f"{note} ms", "start", "note"))
        parts.append(f'<path class="axis" d="M{left} {floor}H{right}"/>')
    parts += tick_texts(marks, x_of, height - 4, "ms")
    return svg(width, height, f"How often which time came: {', '.join(model.label for _, model, _ in rows)}", parts)
