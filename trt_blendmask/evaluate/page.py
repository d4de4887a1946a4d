"""An evaluation as one HTML page that needs no other file, and its curves and its confusion as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from trt_blendmask.evaluate.confusion import SCORE, Confusion
from trt_blendmask.evaluate.scores import CURVES, KINDS, NAMES, percent
from trt_blendmask.html_page import STYLE, WIDE, html_table, page, sized, svg, text, ticks
from trt_blendmask.layout import counted, printable
from trt_blendmask.runtime.panels import figure

if TYPE_CHECKING:
    from trt_blendmask.evaluate import EvalReport, ModelReport

_DASHES = {"0.50": "", "0.75": "7 4", "0.50:0.95": "2 3"}
_PANEL_WH = (375, 320)  # of the curves of boxes, and of masks
_MOST_NUMBERS, _MOST_NAMES = 20, 100  # classes up to which cells have numbers, and rows names


def page_of(report: EvalReport) -> str:
    """Scores of all models, then each model's curves, classes, confusion and failures."""
    heads = ("model", *(name.replace("_", " ") for name in NAMES), "ms")
    rows = [
        (f"{one.label} {kind}", *(percent(getattr(one, kind).overall[name]) for name in NAMES), f"{one.median_ms:.1f}")
        for one in report.models
        for kind in KINDS
    ]
    size = report.resize
    rule = f"shortest side {size.short}, at most {size.long}" if size else "letterbox"
    body = [
        f"<p><b>{report.pictures}</b> of {counted(report.wanted, 'picture')} of {escape(str(report.annotations))}; "
        f"resized by {rule}, masks pasted {escape(report.paste)}.</p>",
        *(f"<p>{escape(note)}</p>" for note in report.notes),
        html_table(heads, rows),
        "<p>Average precision and recall in per cent, by pycocotools. ms: median from letterbox to detections, by the "
        "host's clock, one picture at a time, beside whatever else the machine did.</p>",
    ]
    if len(report.models) > 1:
        body.append(f"<h2>Accuracy and latency</h2>{sized(partial(latency_svg, report.models))}")
    for one in report.models:
        body += _model(one)
    return page("Evaluation", "\n".join(body))


def _model(one: ModelReport) -> list[str]:
    heads = (
        "class",
        *(f"{kind} {name.replace('_', ' ')}" for kind in KINDS for name in ("AP", "AP50", "AP75", "AR_100")),
    )
    rows = [
        (name, *(percent(value) for kind in KINDS for value in getattr(one, kind).per_class[name].values()))
        for name in one.mask.per_class
    ]
    body = [
        f"<h2>{escape(one.label)}</h2><p>{escape(one.how)}</p>",
        sized(partial(curves_svg, one)),
        html_table(heads, rows),
        f"<h3>Confusion</h3><p>From score {SCORE:g} up, box IoU 0.5. Rows: what is there; columns: what was found.</p>",
        confusion_svg(one.confusion),
    ]
    if failures := one.confusion.worst():
        body.append(
            f"<h3>The pictures with most failures: {len(failures)}</h3><p>Left what is there: green found, red missed, "
            "orange taken for another class. Right what was found.</p>"
        )
        body += [figure(failure.picture, failure.sentence()) for failure in failures]
    return body


def curves_svg(one: ModelReport, width: int = WIDE) -> str:
    """Precision against recall of boxes and of masks, the mean of the classes, side by side where there is room."""
    across = max(1, width // _PANEL_WH[0])
    parts = []
    for k, (kind, name) in enumerate((("box", "boxes"), ("mask", "masks"))):
        x, y = _PANEL_WH[0] * (k % across), _PANEL_WH[1] * (k // across)
        panel = _curves(name, getattr(one, kind).precision)
        parts.append(f'<g transform="translate({x} {y})">{"".join(panel)}</g>')
    down = -(-len(parts) // across)
    return svg(_PANEL_WH[0] * across, _PANEL_WH[1] * down, "Precision against recall", parts)


def _curves(title: str, precision: Mapping[str, Sequence[float]]) -> list[str]:
    start, right, top, floor = 40, 350, 34, 270
    parts = [text(start, 16, title, "start", "name")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = floor - (floor - top) * tick, start + (right - start) * tick
        parts += [f'<path class="axis" d="M{start} {y:.1f}H{right}"/>', text(start - 6, y + 4, f"{tick:g}", "end")]
        parts.append(text(x, floor + 16, f"{tick:g}", "middle"))
    for row, (name, values) in enumerate(precision.items()):
        points = [
            f"{start + (right - start) * i / (len(values) - 1):.1f} {floor - (floor - top) * max(0.0, value):.1f}"
            for i, value in enumerate(values)
        ]
        dash = f' stroke-dasharray="{_DASHES[name]}"' if _DASHES[name] else ""
        parts.append(f'<path class="path" d="M{"L".join(points)}"{dash}/>')
        y = floor - 10 - 14 * (len(CURVES) - 1 - row)
        parts += [
            f'<path class="path" d="M{start + 8} {y - 4}h26"{dash}/>',
            text(start + 40, y, f"IoU {name}", "start"),
        ]
    return [*parts, text((start + right) / 2, floor + 34, "recall (precision upwards)", "middle")]


def confusion_svg(confusion: Confusion) -> str:
    """A cell for each pair of classes, the darker the larger its share of its row."""
    matrix, names = confusion.matrix, (*confusion.names, "(nothing)")
    n = len(names)
    cell = 34 if n <= _MOST_NUMBERS + 1 else 12
    left = top = min(150, 12 + 7 * max(len(name) for name in names))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    parts = []
    for k, name in enumerate(names[:_MOST_NAMES]):
        middle = cell * k + cell / 2
        parts.append(text(left - 6, top + middle + 4, name[:22], "end"))
        parts.append(f'<g transform="translate({left + middle + 4:.1f} {top - 6}) rotate(-90)">')
        parts += [text(0, 0, name[:22], "start"), "</g>"]
    for i, j in np.argwhere(matrix).tolist():
        x, y = left + cell * j, top + cell * i
        kind = "bars" if i == j else "clipped"
        opacity = 0.15 + 0.85 * float(shares[i, j])
        title = f"<title>{escape(printable(f'{names[i]} found as {names[j]}: {matrix[i, j]}'))}</title>"
        side = f'width="{cell - 1}" height="{cell - 1}"'
        parts.append(f'<rect class="{kind}" x="{x}" y="{y}" {side} fill-opacity="{opacity:.2f}">{title}</rect>')
        if n <= _MOST_NUMBERS + 1:
            parts.append(text(x + cell / 2, y + cell / 2 + 4, str(matrix[i, j]), "middle", "name"))
    parts.append(f'<rect class="axis" x="{left}" y="{top}" width="{cell * n}" height="{cell * n}" fill="none"/>')
    return svg(left + cell * n + 10, top + cell * n + 10, "What is there against what was found", parts)


def latency_svg(models: tuple[ModelReport, ...], width: int) -> str:
    """Mask AP against the median latency."""
    height, left, top, floor = 360, 56, 18, 310
    x_ticks, y_ticks = ticks(max(one.median_ms for one in models)), (0.0, 25.0, 50.0, 75.0, 100.0)
    parts = []
    for tick in y_ticks:
        y = floor - (floor - top) * tick / y_ticks[-1]
        parts += [f'<path class="axis" d="M{left} {y:.1f}H{width - 16}"/>', text(left - 6, y + 4, f"{tick:g}", "end")]
    for tick in x_ticks:
        parts.append(text(left + (width - left - 120) * tick / x_ticks[-1], floor + 16, f"{tick:g}", "middle"))
    for k, one in enumerate(models):
        x = left + (width - left - 120) * one.median_ms / x_ticks[-1]
        y = floor - (floor - top) * max(0.0, one.mask.overall["AP"])
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(text(x + 4, y + (18 + 14 * (k // 2)) * (-1) ** k, one.label, "middle", "name"))
    parts.append(text((left + width) / 2, height - 10, "median ms by the host's clock (mask AP, % upwards)", "middle"))
    return svg(width, height, "Mask AP against latency", parts)


def standalone(drawing: str) -> str:
    """An SVG that is a file of its own."""
    return drawing.replace(">", f"><style>{STYLE}</style>", 1) + "\n"
