"""The layers of a model as a table that can be searched and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from trt_blendmask.profiler.report import Layer, LayerProfile
from trt_blendmask.profiler.words import cut, ms_text

MOST = 1800  # rows of all tables of a page, which is to stay small enough for a mail
ON_PAPER = 25  # as the style has it
_HEADS = ("layer", "part", "op", "type", "shape", "M multiply-adds", "MB", "ms", "share", "of the roof")
_WORDS = 5  # columns before those of numbers


def layers_table(profile: LayerProfile, most: int) -> str:
    """The `most` slowest layers, from the slowest to the fastest."""
    ordered = sorted(profile.layers, key=lambda layer: -layer.ms)
    rest = ordered[most:]
    table = searched(_HEADS, _WORDS, "ms", [_row(layer) for layer in ordered[:most]], "towers Conv FP32")
    if not rest:
        return table
    rest_ms = ms_text(sum(layer.ms for layer in rest))
    return f"{table}<p>{len(rest)} faster layers, {rest_ms} ms together, are only in the JSON.</p>"


def searched(heads: Sequence[str], words: int, summed: str, rows: Sequence[str], hint: str) -> str:
    """A table that the page's script lets a reader search and sort.

    Args:
        words: how many columns, from the left, are words; the others are numbers.
        summed: the head of those that add up. rows: HTML. hint: what one could search for.
    """
    cells = []
    for k, head in enumerate(heads):
        kinds = ["number"] * (k >= words) + ["summed"] * (head == summed)
        cells.append(f'<th class="{" ".join(kinds)}">{escape(head)}</th>')
    paper = f'<p class="paper">On paper, the first {ON_PAPER} of {len(rows)}.</p>' if len(rows) > ON_PAPER else ""
    return (
        f'<div class="searched"><label class="search">Search <input type="search" placeholder="{escape(hint)}"> '
        f'<output></output></label><table class="layers words{words}"><thead><tr>{"".join(cells)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{paper}</div>"
    )


def _row(layer: Layer) -> str:
    shape = "x".join(map(str, layer.shape))
    numbers = (
        f"{layer.macs / 1e6:,.1f}" if layer.macs else "",
        f"{layer.bytes / 1e6:.2f}" if layer.bytes else "",
        f"{layer.ms:.4f}" if layer.ms < 0.1 else f"{layer.ms:.3f}",
        f"{layer.share:.2%}",
        "" if layer.roof_share is None else f"{layer.roof_share:.0%}",
    )
    words = "".join(f"<td>{escape(word)}</td>" for word in (layer.part, layer.op, layer.precision, shape))
    cells = "".join(f"<td>{number}</td>" for number in numbers)
    kernel = f' title="{escape(cut(layer.kernel))}"' if layer.kernel else ""
    name = f"<td{kernel}>{escape(cut(layer.name))}</td>"
    return f"<tr{' class=reformat' if layer.is_reformat else ''}>{name}{words}{cells}</tr>"
