"""What a quantised file is made of and where it loses precision: a table, JSON, and a page with histograms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from trt_blendmask.calibrate.histogram import Counts
from trt_blendmask.calibrate.threshold import squared_error
from trt_blendmask.files import atomic_output
from trt_blendmask.quantize.histograms import histogram_svg, page
from trt_blendmask.surgery.macs import PARTS, macs_by_node
from trt_blendmask.surgery.reading.merge_weights import without_weights

PRECISIONS = ("INT8", "FP16", "FP32")
TRUNK = ("backbone", "fpn", "towers", "predictors", "basis")
WORST = 10
_CODES = 127  # a threshold is so many steps above zero


@dataclass(frozen=True)
class PartRow:
    """One part of BlendMask (`surgery.macs.PARTS`): its convolutions and products, and their multiply-adds of one run
    by precision."""

    part: str
    layers: dict[str, int]
    macs: dict[str, int]

    @property
    def int8_share(self) -> float:
        return self.macs["INT8"] / max(1, sum(self.macs.values()))


@dataclass(frozen=True)
class TensorRow:
    """One quantised activation.

    Attributes:
        threshold: the largest value that its grid represents. peak: the largest absolute value seen.
        sqnr_db: power of the values by that of their quantisation error, in decibels. clipped: share of the values
            beyond the threshold.
    """

    name: str
    threshold: float
    peak: float
    sqnr_db: float
    clipped: float


@dataclass(frozen=True)
class QuantisationReport:
    """What `describe` found; `tensors` from the worst to the best, empty where no pictures were given."""

    parts: tuple[PartRow, ...]
    tensors: tuple[TensorRow, ...]

    @property
    def trunk_share(self) -> float:
        """INT8 share of the multiply-adds of the dense network, without the selection, the sparse top and the tail."""
        trunk = [row for row in self.parts if row.part in TRUNK]
        return sum(row.macs["INT8"] for row in trunk) / max(1, sum(sum(row.macs.values()) for row in trunk))

    def lines(self) -> list[str]:
        """A table of the parts and one of the worst tensors."""
        lines = [f"{'part':12}{'layers':>8}{'multiply-adds':>16}{'INT8':>9}  precision"]
        for row in (*self.parts, _sum(self.parts)):
            layers, macs = sum(row.layers.values()), sum(row.macs.values())
            made_of = ", ".join(f"{row.layers[p]} {p}" for p in PRECISIONS if row.layers[p])
            lines.append(f"{row.part:12}{layers:8}{f'{macs / 1e6:,.1f} M':>16}{row.int8_share:9.1%}  {made_of}")
        if self.tensors:
            width = max(len(row.name) for row in self.tensors[:WORST])
            lines += ["", f"{'worst tensors':{width}}{'SQNR':>10}{'threshold':>12}{'peak':>10}{'clipped':>10}"]
            lines += [
                f"{t.name:{width}}{t.sqnr_db:7.1f} dB{t.threshold:12.4g}{t.peak:10.4g}{t.clipped:10.4%}"
                for t in self.tensors[:WORST]
            ]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file; numbers that are infinite are null."""
        tensors = [
            {**vars(t), "sqnr_db": round(t.sqnr_db, 3) if math.isfinite(t.sqnr_db) else None} for t in self.tensors
        ]
        parts = [{**vars(row), "int8_share": row.int8_share} for row in self.parts]
        return {"parts": parts, "trunk_int8_share": self.trunk_share, "tensors": tensors}


def describe(quantised: onnx.ModelProto, counts: Mapping[str, Counts]) -> QuantisationReport:
    """Read a deployable graph of any precision.

    Args:
        counts: of the float model's activations by name, as calibration observes them; tensors without are left out.

    Raises:
        DataError: shapes that contradict one another.
    """
    rows = [
        tensor_row(name, threshold, counts[name])
        for name, threshold in thresholds(quantised).items()
        if name in counts and counts[name].peak > 0
    ]
    return QuantisationReport(_parts(quantised), tuple(sorted(rows, key=lambda row: row.sqnr_db)))


def tensor_row(name: str, threshold: float, counts: Counts) -> TensorRow:
    """What quantising with `threshold` does to the values counted."""
    index = np.arange(len(counts.positive), dtype=np.float64)
    magnitudes = counts.magnitudes
    power = float(magnitudes @ (index * index + index + 1 / 3)) * counts.width**2  # evenly within each bin
    error = squared_error(counts, threshold)
    beyond = int(magnitudes[index * counts.width >= threshold].sum())
    sqnr = 10 * math.log10(power / error) if power and error else math.inf
    return TensorRow(name, threshold, counts.peak, sqnr, beyond / max(1, counts.zeros + int(magnitudes.sum())))


def thresholds(quantised: onnx.ModelProto) -> dict[str, float]:
    """Threshold of each activation that a QuantizeLinear reads, from the scale in the file."""
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    return {
        node.input[0]: _CODES * float(numpy_helper.to_array(constants[node.input[1]]))
        for node in quantised.graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in constants and node.input[0] not in constants
    }


def write_report(report: QuantisationReport, counts: Mapping[str, Counts], title: str, path: Path) -> list[Path]:
    """Write `path`, an HTML page that needs no other file, and the same as JSON beside it; returns both.

    Raises:
        OutputError: one of them cannot be written.
    """
    facts = path.with_suffix(".json")
    with atomic_output(path) as temporary:
        temporary.write_text(_page(report, counts, title), encoding="utf-8")
    with atomic_output(facts) as temporary:
        temporary.write_text(json.dumps({"model": title, **report.as_dict()}, indent=1) + "\n")
    return [path, facts]


def _parts(model: onnx.ModelProto) -> tuple[PartRow, ...]:
    types = _element_types(model)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    rows = {part: PartRow(part, dict.fromkeys(PRECISIONS, 0), dict.fromkeys(PRECISIONS, 0)) for part in PARTS}
    for node, part, macs in macs_by_node(model):
        quantised = all(made_by.get(name) == "DequantizeLinear" for name in node.input[:2])
        half = types.get(node.output[0]) == TensorProto.FLOAT16
        precision = "INT8" if quantised else "FP16" if half else "FP32"
        rows[part].layers[precision] += 1
        rows[part].macs[precision] += macs
    return tuple(row for row in rows.values() if sum(row.layers.values()))


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    return {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output)}


def _sum(rows: Sequence[PartRow]) -> PartRow:
    layers = {p: sum(row.layers[p] for row in rows) for p in PRECISIONS}
    return PartRow("all", layers, {p: sum(row.macs[p] for row in rows) for p in PRECISIONS})


def _page(report: QuantisationReport, counts: Mapping[str, Counts], title: str) -> str:
    heads = ("part of BlendMask", "layers", "multiply-adds, M", *(f"{p}, M" for p in PRECISIONS), "share of INT8")
    rows = [
        (
            row.part,
            str(sum(row.layers.values())),
            f"{sum(row.macs.values()) / 1e6:,.1f}",
            *(f"{row.macs[p] / 1e6:,.1f}" if row.macs[p] else "" for p in PRECISIONS),
            f"{row.int8_share:.1%}",
        )
        for row in (*report.parts, _sum(report.parts))
    ]
    body = [
        f"<p>INT8 in the dense network: <b>{report.trunk_share:.1%}</b> of its multiply-adds.</p>",
        _table(heads, rows),
    ]
    if report.tensors:
        worst = report.tensors[:WORST]
        body.append(
            f"<h2>The {len(worst)} tensors that lose most</h2><p>How often which value came (log scale). Lines: where "
            "the INT8 grid ends; beyond them values are clipped.</p>"
        )
        pictures = [histogram_svg(counts[t.name], t.threshold, t.name, _note(t)) for t in worst]
        body.append(f'<div class="grid">{"".join(pictures)}</div>')
        heads = ("tensor", "SQNR, dB", "threshold", "peak", "clipped")
        each = [
            (t.name, f"{t.sqnr_db:.1f}", f"{t.threshold:.4g}", f"{t.peak:.4g}", f"{t.clipped:.4%}")
            for t in report.tensors
        ]
        body.append(f"<details><summary>All {len(each)} quantised tensors</summary>{_table(heads, each)}</details>")
    return page(title, "\n".join(body))


def _note(row: TensorRow) -> str:
    return f"SQNR {row.sqnr_db:.1f} dB, threshold {row.threshold:.4g} of {row.peak:.4g}, {row.clipped:.4%} clipped"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr{' class=all' if row[0] == 'all' else ''}>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
