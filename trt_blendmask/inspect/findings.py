"""What `inspect` tells of a file: the same for every kind, as lines for people and as JSON of a fixed form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.layout import amount, columns, labelled, wrapped
from trt_blendmask.structures import ModelSpec, TensorSpec
from trt_blendmask.surgery.part_rows import PartRow, sum_of, table

SCHEMA = 1
KINDS = (
    "raw-head-onnx",
    "deployable-onnx",
    "trunk-onnx",
    "tail-onnx",
    "onnx",
    "engine",
    "passport",
    "calibration-table",
    "calibration-cache",
    "checkpoint",
)


@dataclass(frozen=True)
class WeightRow:
    """The weights of one part: how many tensors, how many values in them, their bytes in the file, values by type."""

    part: str
    tensors: int
    values: int
    stored_bytes: int
    dtypes: dict[str, int]


@dataclass(frozen=True)
class Findings:
    """What a file is.

    Attributes:
        kind: one of `KINDS`. summary: the same in a few words, with what distinguishes this file.
        facts: by label, for people.
        inputs, outputs: of a network; an open dimension is -1, an unknown one, too.
        parts: multiply-adds by part of BlendMask; one row "network" where the parts cannot be told.
        weights: what is stored, by part where that can be told.
        spec: our metadata; None where there is none.
        details: what only this kind has, plain JSON values.
        notes: what one should know before using the file, a sentence each.
        next: the command that takes the file further, "" where there is none.
    """

    path: Path
    kind: str
    summary: str
    file_bytes: int
    sha256: str
    facts: tuple[tuple[str, str], ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parts: tuple[PartRow, ...] = ()
    weights: tuple[WeightRow, ...] = ()
    spec: ModelSpec | None = None
    details: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    next: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; every key is there for every kind of file. A later `schema` may add keys, but rename none."""
        total = sum_of(self.parts)
        return {
            "schema": SCHEMA,
            "path": str(self.path),
            "kind": self.kind,
            "summary": self.summary,
            "bytes": self.file_bytes,
            "sha256": self.sha256,
            "inputs": [asdict(spec) for spec in self.inputs],
            "outputs": [asdict(spec) for spec in self.outputs],
            "macs": total.total,
            "macs_by_precision": total.macs,
            "parts": [asdict(row) for row in self.parts],
            "weights": [asdict(row) for row in self.weights],
            "spec": asdict(self.spec) if self.spec is not None else None,
            "details": self.details or {},
            "notes": list(self.notes),
            "next": self.next,
        }

    def lines(self, width: int) -> list[str]:
        """For people; at most `width` columns where words can be parted, 0: one fact per line."""
        lines = wrapped(f"{self.path}: {self.summary}", width)
        lines += labelled([("sha256", self.sha256), *self.facts], width)
        ends = [("inputs", self.inputs), ("outputs", self.outputs)]
        rows = [
            [label if i == 0 else "", spec.name, spec.dtype, _shape(spec.shape)]
            for label, specs in ends
            for i, spec in enumerate(specs)
        ]
        lines += ["", *columns(rows)] if rows else []
        lines += ["", *table(self.parts)] if self.parts else []
        lines += ["", *_weights(self.weights)] if self.weights else []
        lines += ["", *labelled(_settings(self.spec), width)] if self.spec is not None else []
        lines += [""] if self.notes else []
        for note in self.notes:
            lines += wrapped(note, width, "- ", "  ")
        return [*lines, "", *wrapped(f"Next: {self.next}", 0)] if self.next else lines


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join('?' if side < 0 else str(side) for side in shape)}]"


def _weights(rows: tuple[WeightRow, ...]) -> list[str]:
    cells = [["weights of", "tensors", "values", "stored", "types"]]
    for row in rows:
        types = ", ".join(row.dtypes)
        cells.append([row.part, str(row.tensors), f"{row.values:,}", amount(row.stored_bytes, "B"), types])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    part, *_ = widths
    return [
        f"{c[0]:{part}}  {'  '.join(f'{cell:>{w}}' for cell, w in zip(c[1:4], widths[1:4], strict=True))}  {c[4]}"
        for c in cells
    ]


def _settings(spec: ModelSpec) -> list[tuple[str, str]]:
    names = {"kind": "settings of", "class_names": f"{spec.num_classes} classes"}
    values = [(names.get(key, key.replace("_", " ")), _words(value)) for key, value in asdict(spec).items()]
    return [(label, words) for label, words in values if words]


def _words(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
