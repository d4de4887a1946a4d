"""Artefacts that are text: a calibration table, TensorRT's calibration cache, the passport of an engine."""

from __future__ import annotations

import json
import math
import re
import shlex
import struct
from pathlib import Path
from typing import Any

from trt_blendmask.calibrate.store import histograms_beside
from trt_blendmask.errors import DataError
from trt_blendmask.files import file_sha256
from trt_blendmask.inspect.engine import inspect_passport
from trt_blendmask.inspect.findings import Findings
from trt_blendmask.structures import CalibrationTable

MAX_BYTES = 1 << 26
_HINT = "Name an ONNX model, an engine, its passport, a calibration table or a checkpoint."
_CACHE = re.compile(r"TRT-(\d+)-(\w+)")
_SHOWN = 3


def inspect_text(file: Path) -> Findings:
    """Tell which text it is, by what it holds.

    Raises:
        DataError: none of these, or damaged.
    """
    if file.stat().st_size > MAX_BYTES:
        raise DataError(f"Expected at most {MAX_BYTES >> 20} MiB of text in '{file}', but it is larger. {_HINT}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected text in UTF-8 in '{file}', but it has other bytes. {_HINT}") from error
    if header := _CACHE.fullmatch(text.partition("\n")[0].strip()):
        return _cache(file, text, header)
    keys = _keys(text)
    if "plan_sha256" in keys:
        return inspect_passport(file)
    if "ranges" in keys:
        return _table(file, text)
    raise DataError(f"Expected an artefact of this package, but '{file}' is another text. {_HINT}")


def _keys(text: str) -> set[str]:
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return {name for name in ("plan_sha256", "ranges") if f'"{name}"' in text}  # damaged: its reader says how
    return set(values) if isinstance(values, dict) else set()


def _table(file: Path, text: str) -> Findings:
    table = CalibrationTable.from_json(text)
    beside = histograms_beside(file)
    facts = [
        ("model", f"of the graph with sha256 {table.model_sha256}"),
        ("method", table.method),
        ("pictures", f"{len(table.images):,}"),
        ("made by", ", ".join(f"{name} {version}" for name, version in table.versions.items())),
        ("histograms", str(beside) if beside.is_file() else "none beside it: no report of errors, no going on"),
    ]
    return Findings(
        file,
        "calibration-table",
        f"a calibration table, {len(table.ranges)} activations from {len(table.images):,} pictures, by {table.method}",
        file.stat().st_size,
        file_sha256(file),
        facts=(*facts, *_extremes(table.ranges)),
        details={
            "model_sha256": table.model_sha256,
            "method": table.method,
            "images": len(table.images),
            "versions": table.versions,
            "ranges": table.ranges,
        },
        next=f"trt-blendmask quantize MODEL --precision int8 --from {shlex.quote(str(file))}",
    )


def _cache(file: Path, text: str, header: re.Match[str]) -> Findings:
    ranges: dict[str, float] = {}
    for number, line in enumerate(text.splitlines()[1:], 2):
        name, _, digits = line.rpartition(":")
        if not line.strip():
            continue
        scale = _float32(digits.strip())
        if not name or not math.isfinite(scale):
            raise DataError(
                f"Expected 'tensor: eight hex digits' in line {number} of the calibration cache '{file}', got "
                f"{line[:80]!r}. Make it again: trt-blendmask calibrate MODEL --images DIR --cache F"
            )
        ranges[name] = scale * 127
    return Findings(
        file,
        "calibration-cache",
        f"TensorRT's calibration cache, {len(ranges)} activations",
        file.stat().st_size,
        file_sha256(file),
        facts=(("made for", f"TensorRT {header[1]}, {header[2]}"), *_extremes(ranges)),
        details={"version": header[1], "calibrator": header[2], "ranges": ranges},
        notes=("TensorRT 11 reads none: its INT8 comes from the ONNX file (trt-blendmask quantize).",),
    )


def _float32(digits: str) -> float:
    """The number written as eight hex digits, highest byte first; NaN for other text."""
    if not re.fullmatch(r"[0-9a-fA-F]{8}", digits):
        return math.nan
    (value,) = struct.unpack(">f", bytes.fromhex(digits))
    return float(value)


def _extremes(ranges: dict[str, float]) -> list[tuple[str, str]]:
    ordered = sorted(ranges.items(), key=lambda item: item[1])
    shown = [(f"{value:.4g}", name) for name, value in ordered]
    return [
        (label, ", ".join(f"{value} ({name})" for value, name in some))
        for label, some in (("narrowest", shown[:_SHOWN]), ("widest", shown[::-1][:_SHOWN]))
        if some
    ]
