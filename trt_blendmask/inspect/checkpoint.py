"""A checkpoint: its weights by part of BlendMask, and the published configuration that they fit."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from trt_blendmask.export.advice import HEAD, advise
from trt_blendmask.export.pth import is_legacy
from trt_blendmask.export.reader import ZIP_START, Checkpoint, read_checkpoint
from trt_blendmask.export.storage import ITEM_BYTES
from trt_blendmask.files import file_sha256
from trt_blendmask.inspect.findings import Findings, WeightRow
from trt_blendmask.surgery.macs import PARTS, part_of

_OTHER = "other"
_NEEDED = {"backbone.": "a backbone", HEAD: "the heads of FCOS", "basis_module.": "bases", "top_layer.": "attention"}
_MAX_LISTED = 12


def inspect_checkpoint(file: Path, head: bytes) -> Findings:
    """Names, shapes and types of the weights; no value is read.

    Raises:
        DataError: cut short or inconsistent. NotTrustedError: its pickle asks for more than tensors.
    """
    checkpoint = read_checkpoint(file)
    lacks = [words for start, words in _NEEDED.items() if not any(k.startswith(start) for k in checkpoint.weights)]
    rows = _rows(checkpoint)
    values = sum(row.values for row in rows)
    is_blendmask = not lacks
    name = "a BlendMask checkpoint" if is_blendmask else "a checkpoint of another network"
    notes = [advise(checkpoint)] if is_blendmask else [f"It lacks {', '.join(lacks)}: no BlendMask as AdelaiDet's."]
    facts = [("form", _form(head))]
    if checkpoint.other_keys:
        shown = ", ".join(checkpoint.other_keys[:_MAX_LISTED])
        facts.append(("holds also", f"{shown}, ..." if len(checkpoint.other_keys) > _MAX_LISTED else shown))
    return Findings(
        file,
        "checkpoint",
        f"{name}, {len(checkpoint.weights)} tensors, {values / 1e6:.2f} M values",
        file.stat().st_size,
        file_sha256(file),
        facts=tuple(facts),
        weights=rows,
        details={
            "form": _form(head),
            "is_blendmask": is_blendmask,
            "other_keys": list(checkpoint.other_keys),
            "tensors": {key: {"dtype": w.dtype, "shape": list(w.shape)} for key, w in checkpoint.weights.items()},
        },
        notes=tuple(notes),
        next=f"trt-blendmask export {shlex.quote(str(file))} --config YAML -o raw.onnx" if is_blendmask else "",
    )


def _form(head: bytes) -> str:
    if head.startswith(ZIP_START):
        return "PyTorch's zip (since 1.6)"
    return "PyTorch's row of pickles (before 1.6)" if is_legacy(head) else "safetensors"


def _rows(checkpoint: Checkpoint) -> tuple[WeightRow, ...]:
    found: dict[str, list[tuple[str, int]]] = {part: [] for part in (*PARTS, _OTHER)}
    for key, weight in checkpoint.weights.items():
        found[part_of(key, []) or _OTHER].append((weight.dtype, math.prod(weight.shape)))
    rows = []
    for part, tensors in found.items():
        if tensors:
            dtypes: dict[str, int] = {}
            for dtype, values in tensors:
                dtypes[dtype] = dtypes.get(dtype, 0) + values
            stored = sum(ITEM_BYTES[dtype] * values for dtype, values in dtypes.items())
            rows.append(WeightRow(part, len(tensors), sum(dtypes.values()), stored, dtypes))
    return tuple(rows)
