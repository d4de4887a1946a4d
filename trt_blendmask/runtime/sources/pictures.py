"""A picture, a folder of pictures or a pattern as a source."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.files import existing_file, is_folder
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.images import SUFFIXES, natural_key, read_image
from trt_blendmask.runtime.sources.grammar import TAKES, SourceAddress, fitting, is_pattern
from trt_blendmask.runtime.sources.protocol import Recorded
from trt_blendmask.structures import Frame

PICTURES_FPS = 10.0  # a folder has no clock: slow enough to look at each picture


class PictureSource(Recorded):
    """Pictures as frames, in natural order of their names."""

    def __init__(self, address: SourceAddress, events: Events) -> None:
        super().__init__(address.name)
        self._events, self._wh, self._mixed = events, (0, 0), False
        self.fps, files = PICTURES_FPS, _pictures(address.target)
        if not files:
            raise InputMissingError(
                f"Expected pictures in '{address.target}', but there are none ({', '.join(SUFFIXES)})."
                + (" Name videos one by one: a pattern is of pictures." if is_pattern(address.target) else "")
            )
        self._files = sorted(files, key=natural_key)
        self.frame_count: int | None = len(files)

    def __iter__(self) -> Iterator[Frame]:
        for file in self._files:
            try:
                image = read_image(file)
            except (DataError, InputMissingError):  # the latter: deleted since
                self.corrupt += 1
                if self.corrupt == len(self._files):
                    raise
                continue
            frame = self._frame(image, self._index / self.fps, file.name)
            if not self._mixed and self._wh not in ((0, 0), frame.frame_wh):
                self._tell_mixed(frame.frame_wh)
            self._wh = frame.frame_wh
            yield frame
        self._end()

    def close(self) -> None:
        pass

    def _tell_mixed(self, wh: tuple[int, int]) -> None:
        """Once: of photographs, each may have another size."""
        self._mixed, old = True, self._wh
        text = f"{self.name}: its pictures are of different sizes, as {old[0]} x {old[1]} and {wh[0]} x {wh[1]}"
        self._events.publish("format_changed", text, {"source": self.name, "from_wh": list(old), "to_wh": list(wh)})


def _pictures(text: str) -> list[Path]:
    path, fits = Path(text), is_pattern(text)
    if not fits and not is_folder(path):
        return [existing_file(path, "a picture", f"A source is {TAKES}.")]
    try:
        found = fitting(text) if fits else path.iterdir()
        return [file for file in found if _is_picture(file)]
    except OSError as error:
        raise InputMissingError(
            f"Expected a folder of pictures at '{path}', but it cannot be read: {error.strerror}. Look at it: ls -ld "
            f"{shlex.quote(str(path))}"
        ) from error


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
