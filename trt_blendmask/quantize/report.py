"""What a quantised file is made of and where it loses precision: a table, JSON, and a page with histograms."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from trt_blendmask.calibrate.histogram import Counts, Histogram
from trt_blendmask.calibrate.threshold import squared_error
from trt_blendmask.files import atomic_output
from trt_blendmask.html_page import html_table, page
from trt_blendmask.quantize.gate import BELOW, NOT_COMPARED, Verdict
from trt_blendmask.quantize.histograms import histogram_svg
from trt_blendmask.quantize.int8 import Prepared
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.quantize.weights import CODES, QuantisedWeight
from trt_blendmask.surgery.part_rows import PRECISIONS, PartRow, part_rows, sum_of, table

TRUNK = ("backbone", "fpn", "towers", "predictors", "basis")
WORST = 10


@dataclass(frozen=True)
class TensorRow:
    """One quantised tensor.

    Attributes:
        kind: "activation" or "weights". Of weights, `threshold` and `peak` are in steps of their output channel.
        threshold: the largest value that TensorRT's grid represents. peak: the largest absolute value.
        sqnr_db: power of the values by that of their quantisation error, in decibels. clipped: share of the values
            beyond the threshold.
        counts: how often which value came.
    """

    name: str
    kind: str
    threshold: float
    peak: float
    sqnr_db: float
    clipped: float
    counts: Counts

    @property
    def title(self) -> str:
        return self.name if self.kind == "activation" else f"{self.name} (weights)"


@dataclass(frozen=True)
class QuantisationReport:
    """What `describe` found; `tensors` from the worst to the best."""

    parts: tuple[PartRow, ...]
    tensors: tuple[TensorRow, ...]

    @property
    def trunk_share(self) -> float:
        """INT8 share of the multiply-adds of the dense network, without the selection, the sparse top and the tail."""
        trunk = [row for row in self.parts if row.part in TRUNK]
        return sum(row.macs["INT8"] for row in trunk) / max(1, sum(sum(row.macs.values()) for row in trunk))

    def lines(self) -> list[str]:
        """A table of the parts and one of the worst tensors."""
        lines = table(self.parts)
        if self.tensors:
            width = max(len(row.title) for row in self.tensors[:WORST])
            lines += ["", f"{'worst tensors':{width}}{'SQNR':>10}{'threshold':>12}{'peak':>10}{'clipped':>10}"]
            lines += [
                f"{t.title:{width}}{t.sqnr_db:7.1f} dB{t.threshold:12.4g}{t.peak:10.4g}{t.clipped:10.4%}"
                for t in self.tensors[:WORST]
            ]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file; numbers that are infinite are null."""
        tensors = [
            {**vars(t), "sqnr_db": round(t.sqnr_db, 3) if math.isfinite(t.sqnr_db) else None} for t in self.tensors
        ]
        for row in tensors:
            del row["counts"]
        parts = [{**vars(row), "int8_share": row.share("INT8")} for row in self.parts]
        return {"parts": parts, "trunk_int8_share": self.trunk_share, "tensors": tensors}


def describe(quantised: onnx.ModelProto, rows: Iterable[TensorRow]) -> QuantisationReport:
    """Read a deployable graph of any precision.

    Args:
        rows: of its quantised tensors.

    Raises:
        DataError: shapes that contradict one another.
    """
    return QuantisationReport(part_rows(quantised), tuple(sorted(rows, key=lambda row: row.sqnr_db)))


def tensor_rows(prepared: Prepared, keep_float: Collection[str], counts: Mapping[str, Counts]) -> list[TensorRow]:
    """Activations and weights that are INT8 if the layers `keep_float` are not.

    Args:
        counts: of the float model's activations by name, as calibration observes them; those without, or that were
            always 0, are left out.
    """
    plan = read_plan(prepared.model, keep_float)
    seen = [name for name in plan.tensors if name in counts and counts[name].peak > 0]
    rows = [activation_row(name, CODES * prepared.scales[name], counts[name]) for name in seen]
    floats = {tensor.name: tensor for tensor in prepared.model.graph.initializer}
    names = dict.fromkeys(layer.weight for layer in plan.layers)
    return rows + [weight_row(name, numpy_helper.to_array(floats[name]), prepared.weights[name]) for name in names]


def activation_row(name: str, threshold: float, counts: Counts) -> TensorRow:
    """What quantising with `threshold` does to the values counted."""
    index = np.arange(len(counts.positive), dtype=np.float64)
    power = float(counts.magnitudes @ (index * index + index + 1 / 3)) * counts.width**2  # evenly within each bin
    sqnr = decibels(power, squared_error(counts, threshold))
    return TensorRow(name, "activation", threshold, counts.peak, sqnr, _beyond(counts, threshold), counts)


def weight_row(name: str, weight: npt.NDArray[np.float32], quantised: QuantisedWeight) -> TensorRow:
    """What became of weights float32 [O, ...]."""
    difference = (quantised.values - weight).astype(np.float64)
    sqnr = decibels(float((weight.astype(np.float64) ** 2).sum()), float((difference**2).sum()))
    steps = Histogram()
    steps.add(weight / quantised.scales.reshape(-1, *[1] * (weight.ndim - 1)))
    counts = steps.freeze()
    return TensorRow(name, "weights", CODES, counts.peak, sqnr, _beyond(counts, CODES + 0.5), counts)


def decibels(power: float, error: float) -> float:
    """Signal to noise; infinite without noise."""
    return 10 * math.log10(power / error) if power and error else math.inf


def _beyond(counts: Counts, threshold: float) -> float:
    index = np.arange(len(counts.positive), dtype=np.float64)
    beyond = int(counts.magnitudes[index * counts.width >= threshold].sum())
    return beyond / max(1, counts.zeros + int(counts.magnitudes.sum()))


def write_report(report: QuantisationReport, verdict: Verdict | None, title: str, path: Path) -> list[Path]:
    """Write `path`, an HTML page that needs no other file, and the same as JSON beside it; returns both.

    Raises:
        OutputError: one of them cannot be written.
    """
    facts = path.with_suffix(".json")
    against = None if verdict is None else {**vars(verdict.agreement), "pictures": verdict.pictures}
    with atomic_output(path) as temporary:
        temporary.write_text(_page(report, verdict, title), encoding="utf-8")
    with atomic_output(facts) as temporary:
        values = {"model": title, "agreement": against, **report.as_dict()}
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return [path, facts]


def _page(report: QuantisationReport, verdict: Verdict | None, title: str) -> str:
    heads = ("part of BlendMask", "layers", "multiply-adds, M", *(f"{p}, M" for p in PRECISIONS), "share of INT8")
    rows = [
        (
            row.part,
            str(sum(row.layers.values())),
            f"{sum(row.macs.values()) / 1e6:,.1f}",
            *(f"{row.macs[p] / 1e6:,.1f}" if row.macs[p] else "" for p in PRECISIONS),
            f"{row.share('INT8'):.1%}",
        )
        for row in (*report.parts, sum_of(report.parts))
    ]
    body = [
        f"<p>{escape(verdict.sentence() if verdict else NOT_COMPARED)}</p>",
        *([f"<p>{escape(BELOW)}</p>"] if verdict and not verdict.passed else []),
        f"<p>INT8 in the dense network: <b>{report.trunk_share:.1%}</b> of its multiply-adds.</p>",
        html_table(heads, rows),
    ]
    if report.tensors:
        worst = report.tensors[:WORST]
        body.append(
            f"<h2>The {len(worst)} tensors that lose most</h2><p>How often which value came (log scale). Lines: where "
            "the INT8 grid ends; beyond them values are clipped. Weights are in steps of their output channel.</p>"
        )
        pictures = [histogram_svg(t.counts, t.threshold, t.title, _note(t)) for t in worst]
        body.append(f'<div class="grid">{"".join(pictures)}</div>')
        heads = ("tensor", "SQNR, dB", "threshold", "peak", "clipped")
        each = [
            (t.title, f"{t.sqnr_db:.1f}", f"{t.threshold:.4g}", f"{t.peak:.4g}", f"{t.clipped:.4%}")
            for t in report.tensors
        ]
        body.append(f"<details><summary>All {len(each)} quantised tensors</summary>{html_table(heads, each)}</details>")
    return page(title, "\n".join(body))


def _note(row: TensorRow) -> str:
    return f"SQNR {row.sqnr_db:.1f} dB, threshold {row.threshold:.4g} of {row.peak:.4g}, {row.clipped:.4%} clipped"
