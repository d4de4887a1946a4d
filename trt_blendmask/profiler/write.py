"""A profile into files: the page, JSON, and what trtexec would have written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from trt_blendmask.files import atomic_output
from trt_blendmask.profiler.diff import Diff
from trt_blendmask.profiler.page import diff_page_of, page_of
from trt_blendmask.profiler.report import ProfileReport
from trt_blendmask.profiler.trtexec import write_trtexec


def write(report: ProfileReport, page: Path, facts: Path | None = None, trtexec: Path | None = None) -> list[Path]:
    """Write the page and, where they are named, the JSON and a folder with one of each model; what was written.

    Raises:
        OutputError: a file cannot be written.
    """
    written = _write({page: page_of(report), **_json(facts, report.as_dict())})
    if trtexec is not None:
        written += [file for model in report.models for file in write_trtexec(model, trtexec / model.label)]
    return written


def write_diff(found: Diff, page: Path, facts: Path | None = None) -> list[Path]:
    """Write the page, and the JSON where it is named; what was written.

    Raises:
        OutputError: a file cannot be written.
    """
    return _write({page: diff_page_of(found), **_json(facts, asdict(found))})


def _json(file: Path | None, values: object) -> dict[Path, str]:
    return {file: json.dumps(values, allow_nan=False) + "\n"} if file is not None else {}


def _write(texts: dict[Path, str]) -> list[Path]:
    for file, text in texts.items():
        with atomic_output(file) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return list(texts)
