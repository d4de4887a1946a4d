"""One line of JSON per frame; the format is `trt_blendmask/data/frame.schema.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trt_blendmask.coco import to_coco
from trt_blendmask.errors import OutputError
from trt_blendmask.paste import visible
from trt_blendmask.runtime.recording.growing import GrowingFile, write_all
from trt_blendmask.runtime.recording.polygons import polygons
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import check_place

MASKS = ("rle", "polygons", "none")
STANDARD_OUTPUT = Path("-")


class JsonLines:
    """Writes each line whole and at once, so that a reader at the other end of a pipe never waits for it, and a kill
    loses at most the line that was being written. Disk full leaves whole lines.
    """

    draws = False

    def __init__(self, path: Path, masks: str = "rle") -> None:
        self.name = "standard output" if path == STANDARD_OUTPUT else str(path)
        self.written: list[Path] = []
        self._path, self._masks = path, masks
        self._file: GrowingFile | None = None
        self._size = 0

    def check(self) -> None:
        if self._path != STANDARD_OUTPUT:
            check_place(self._path)

    def write(self, result: FrameResult) -> None:
        text = json.dumps(line_of(result, self._masks), ensure_ascii=False, allow_nan=False) + "\n"
        data = text.encode("utf-8", "backslashreplace")  # \udc80: a file name that is not UTF-8
        if self._path == STANDARD_OUTPUT:
            write_all(_standard_output(), data)
            return
        if self._file is None:
            self._file = GrowingFile(self._path)
            self.written.append(self._path)
        try:
            self._file.write(data)
        except OSError:
            self._file.cut(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def line_of(result: FrameResult, masks: str = "rle") -> dict[str, Any]:
    """The content of one line, plain JSON values; `masks` is one of `MASKS`."""
    frame = result.frame
    line: dict[str, Any] = {"frame": frame.index, "time_s": round(frame.time_s, 6)}
    if frame.name:
        line["file_name"] = frame.name
    line |= {
        "source": frame.source,
        "wall_s": round(frame.wall_s, 6),
        "monotonic_s": round(frame.captured_s, 6),
        "frame_wh": list(frame.frame_wh),
        "stage_ms": {stage: round(ms, 3) for stage, ms in result.stage_ms.items()},
    }
    objects = to_coco(result.detections, result.paste, with_masks=masks == "rle")
    if masks == "polygons":
        for found, rank in zip(objects, np.flatnonzero(visible(result.detections)), strict=True):
            found["segmentation"] = polygons(result.outlined[rank], frame.frame_wh)
    return line | {"detections": objects}


def _standard_output() -> int:
    try:
        sys.stdout.flush()
        return sys.stdout.fileno()
    except (AttributeError, ValueError, OSError) as error:  # closed by the caller, or no file at all
        raise OutputError("Expected an open standard output for the JSON lines: name a file with --json.") from error
