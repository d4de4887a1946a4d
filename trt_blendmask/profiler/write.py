"""A profile into files: the page, JSON, and what trtexec would have written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from trt_blendmask.files import write_texts
from trt_blendmask.profiler.diff import Diff
from trt_blendmask.profiler.page import diff_page_of, page_of
from trt_blendmask.profiler.report import ProfileReport
from trt_blendmask.profiler.trtexec import write_trtexec


def write(report: ProfileReport, page: Path, facts: Path | None = None, trtexec: Path | None = None) -> list[Path]:
    """Write the page and, where they are named, the JSON and a folder with one of each model; what was written.

    Raises:
        OutputError: a file cannot be written.
    """
    texts = {page: page_of(report), **_json(facts, report.as_dict())}
    write_texts(texts)
    written = list(texts)
    if trtexec is not None:
        written += [file for model in report.models for file in write_trtexec(model, trtexec / model.label)]
    return written


def write_diff(found: Diff, page: Path, facts: Path | None = None) -> list[Path]:
    """Write the page, and the JSON where it is named; what was written.

    Raises:
        OutputError: a file cannot be written.
    """
    texts = {page: diff_page_of(found), **_json(facts, asdict(found))}
    write_texts(texts)
    return list(texts)


def _json(file: Path | None, values: object) -> dict[Path, str]:
    return {file: json.dumps(values, allow_nan=False) + "\n"} if file is not None else {}
