"""A picture, a folder of pictures or a pattern as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.files import existing_file
from trt_blendmask.runtime.images import SUFFIXES, natural_key, read_image
from trt_blendmask.runtime.sources.grammar import TAKES, is_pattern
from trt_blendmask.runtime.sources.protocol import Recorded
from trt_blendmask.structures import Frame

PICTURES_FPS = 10.0  # a folder has no clock: slow enough to look at each picture


class PictureSource(Recorded):
    """Pictures as frames, in natural order of their names."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.fps, files = PICTURES_FPS, _pictures(text)
        if not files:
            raise InputMissingError(f"Expected pictures in '{text}', but there are none ({', '.join(SUFFIXES)}).")
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
            yield self._frame(image, self._index / self.fps, file.name)
        self._end()

    def close(self) -> None:
        pass


def _pictures(text: str) -> list[Path]:
    path, fits = Path(text), is_pattern(text)
    if not fits and not path.is_dir():
        return [existing_file(path, "a picture", f"A source is {TAKES}.")]
    try:
        found = path.parent.glob(path.name) if fits else path.iterdir()
        return [file for file in found if _is_picture(file)]
    except OSError as error:
        raise InputMissingError(f"The folder '{path}' cannot be read: {error.strerror}. Check it.") from error


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
