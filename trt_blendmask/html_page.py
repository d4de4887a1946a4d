"""What all HTML pages share: their style, tables, and small parts of drawings (SVG: text that a browser sharpens)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from trt_blendmask.layout import printable

WIDE, NARROW = 760, 350  # units of a drawing for a desk or paper, and for a phone; letters keep their size

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #677084; --line: #d6dae2; --fill: #6f9fd8; --cut: #d8483e;
  --good: #2b8a57; --paper: #ffffff; --wash: #f5f6f9 }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --dim: #97a1b5; --line: #39414f;
  --fill: #5d8fca; --cut: #ff7a6b; --good: #58c08a; --paper: #14181f; --wash: #1c222c } }
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


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Texts as a table; a row that begins with "all" is bold."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr{' class=all' if row[0] == 'all' else ''}>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole HTML page that needs no other file; `style` adds to that of all pages, `script` runs at its end."""
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
summary {{ cursor: pointer }}
figure {{ margin: 0 0 1rem }}
figure img {{ max-width: 100% }}
.wide svg {{ width: 100%; max-width: 980px }}
.wide, .narrow {{ margin-top: .8rem }}
.narrow {{ display: none }}
@media (max-width: 640px) {{ body {{ margin: 1rem auto }} h1 {{ font-size: 1.5rem }} table {{ font-size: .88rem }}
  th, td {{ padding: .15rem .4rem }} .wide {{ display: none }} .narrow {{ display: block }}
  figure {{ overflow-x: auto }} figure img {{ max-width: none; width: 220vw }} }}
@media print {{ body {{ margin: 0; padding: 0; max-width: none; font-size: 12px }} table {{ display: table }}
  .wide {{ display: block }} .narrow {{ display: none }}
  figure {{ overflow: visible }} figure img {{ width: 100% }}
  svg, tr, figure {{ break-inside: avoid }} :is(h2, h3), :is(h2, h3) + p {{ break-after: avoid }}
  thead {{ display: table-header-group }} }}
{style}"""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{style}</style>\n'
        f"<h1>{escape(title)}</h1>\n{body}\n{f'<script>{script}</script>' if script else ''}</html>\n"
    )


def sized(draw: Callable[[int], str]) -> str:
    """A drawing of the width `WIDE` and one of `NARROW`; the style shows the one that suits the page."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to `most` or the next beyond it."""
    least = max(most, 1e-3) / 5
    power = 10.0 ** math.floor(math.log10(least))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= least * 0.999)
    return [round(k * step, 9) for k in range(math.ceil(most / step - 1e-6) + 1)] if most > 0 else [0.0, step]


def text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    """Words of a drawing, on the baseline `y`, both in its units (a pixel, unless it is scaled).

    Args:
        anchor: what of the words is at `x`: "start", "middle" or "end". kind: class of `STYLE`.
    """
    klass = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{klass}>{escape(printable(words))}</text>'


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    """A drawing of `parts`, in units that are pixels unless the page scales it; `label` is for who cannot see it."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
