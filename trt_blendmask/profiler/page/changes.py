"""Two profiles on one page: what changed, by how much, and the likely cause."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

from trt_blendmask.html_page import html_table, sized, svg, text, ticks
from trt_blendmask.profiler.diff import Diff, ModelDiff
from trt_blendmask.profiler.diff_layers import LayerChange, PartChange
from trt_blendmask.profiler.page.drawing import part_colour, tick_texts
from trt_blendmask.profiler.page.layers import searched
from trt_blendmask.profiler.words import cut, ms_text

_ROW, _TALL = 34, 11
_MOST = 500  # layers of a model


def body_of(found: Diff) -> str:
    """Verdicts first, then each model by part and by layer, then the machines."""
    body = [f'<p class="lead">{escape(model.sentence())}.</p>' for model in found.models]
    body.append(f"<dl><dt>Before</dt><dd>{escape(found.one)}</dd><dt>After</dt><dd>{escape(found.other)}</dd></dl>")
    if found.missing:
        body.append(_notes("Mind", [f"{words}." for words in found.missing]))
    for model in found.models:
        body += _model(model, alone=len(found.models) == 1)
    body.append("<h2>Machine</h2>")
    body.append(
        html_table(("what changed", "before", "after"), found.environment)
        if found.environment
        else "<p>Nothing that is known of it changed.</p>"
    )
    return "\n".join(body)


def _model(model: ModelDiff, alone: bool) -> list[str]:
    name = model.one if model.one == model.other else f"{model.one} → {model.other}"
    body: list[str] = []
    if model.causes:
        body.append(_notes("Likely", model.causes))
    if model.notes:
        body.append(_notes("Mind", model.notes))
    if model.parts:
        body.append(f"<h3>By part</h3>{sized(partial(_parts_svg, model.parts))}{_parts_table(model.parts)}")
    if model.layers:
        body.append(f"<h3>By layer</h3>{_layers(model.layers)}")
    if alone or not body:
        return body
    if model.differs or any(part.differs for part in model.parts):
        return [f"<h2>{escape(name)}</h2>", *body]
    return [f"<details><summary>{escape(name)}, which did not change</summary>", *body, "</details>"]


def _layers(layers: Sequence[LayerChange]) -> str:
    changed = [layer for layer in layers if layer.differs]
    rest = f"{len(layers) - len(changed)} did not change beyond the noise"
    if not changed:
        return f"<p>{rest}.</p>"
    heads = ("layer before", "layer after", "what happened", "before, ms", "after, ms", "change, ms")
    table = searched(heads, 3, "change, ms", [_layer(layer) for layer in changed[:_MOST]], "reformat FP32")
    left_out = f", and {len(changed) - _MOST} that changed least are left out" if len(changed) > _MOST else ""
    return f"<p>The largest change first; {rest}{left_out}.</p>{table}"


def _notes(title: str, words: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(word)}</li>" for word in words)
    return f'<div class="warnings"><b>{title}</b><ul>{items}</ul></div>'


def _parts_svg(parts: Sequence[PartChange], width: int) -> str:
    """Two bars for each part, before above after."""
    most = ticks(max(max(part.one_ms, part.other_ms) for part in parts))
    left, right, height = 110, width - 12, _ROW * len(parts) + 26

    def x_of(ms: float) -> float:
        return left + (right - left) * ms / most[-1]

    drawn = []
    for row, part in enumerate(parts):
        top = _ROW * row + 4
        drawn.append(text(left - 6, top + _TALL + 4, part.part, "end", "name" if part.differs else ""))
        for k, ms in enumerate((part.one_ms, part.other_ms)):
            faint = "" if k else ";fill-opacity:.5"
            box = f'x="{left}" y="{top + k * (_TALL + 1)}" width="{x_of(ms) - left:.1f}" height="{_TALL}"'
            title = f"<title>{escape(part.part)} {'after' if k else 'before'}: {ms_text(ms)} ms</title>"
            drawn.append(f'<rect style="fill:{part_colour(part.part)}{faint}" {box}>{title}</rect>')
    drawn += tick_texts(most, x_of, height - 4, "ms")
    return svg(width, height, "Milliseconds of each part, before above after", drawn)


def _parts_table(parts: Sequence[PartChange]) -> str:
    heads = ("part", "before, ms", "after, ms", "change", "reformats in it", "a difference", "likely")
    rows = [
        (
            part.part,
            ms_text(part.one_ms),
            ms_text(part.other_ms),
            f"{part.other_ms - part.one_ms:+.3f}",
            f"{ms_text(part.reformat_one_ms)} → {ms_text(part.reformat_other_ms)}"
            if part.reformat_one_ms or part.reformat_other_ms
            else "",
            "yes" if part.differs else "no",
            ", ".join(part.causes),
        )
        for part in parts
    ]
    return html_table(heads, rows)


def _layer(layer: LayerChange) -> str:
    happened = "; ".join((*layer.causes, *layer.details))
    words = (" + ".join(layer.names_one) or "(none)", " + ".join(layer.names_other) or "(none)", happened)
    numbers = (f"{layer.one_ms:.4f}", f"{layer.other_ms:.4f}", f"{layer.change_ms:+.4f}")
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in (*map(cut, words), *numbers))
    return f"<tr>{cells}</tr>"
