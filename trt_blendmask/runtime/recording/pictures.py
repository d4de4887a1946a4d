"""One overlay picture per frame, in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from trt_blendmask.errors import OutputNameError
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import check_place

FORMATS = ("jpg", "png")
_QUALITY = 92  # of a JPEG


class Pictures:
    """Writes 00000000.jpg, 00000001.jpg, ...: the number of the frame in its source; each is whole when it appears."""

    draws = True

    def __init__(self, folder: Path, picture_format: str = "jpg") -> None:
        self.name = str(folder)
        self.written: list[Path] = []
        self._folder, self._format = folder, picture_format

    def check(self) -> None:
        if os.access(self._folder, os.F_OK) and not self._folder.is_dir():  # Path.exists raises where we may not look
            raise OutputNameError(f"Expected a folder for the pictures, got the file '{self._folder}'. Name a folder.")
        check_place(self._folder / f"0.{self._format}")

    def write(self, result: FrameResult) -> None:
        options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if self._format == "jpg" else []
        content = cv2.imencode(f".{self._format}", result.picture, options)[1]
        path = self._folder / f"{result.frame.index:08d}.{self._format}"
        growing = path.with_name(f".{path.name}")
        try:
            growing.write_bytes(content.tobytes())
            growing.replace(path)
        except OSError:
            growing.unlink(missing_ok=True)
            raise
        if not self.written:
            self.written.append(self._folder)

    def close(self) -> None:
        """Nothing is open between two pictures."""
