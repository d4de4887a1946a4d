"""The pictures to calibrate on: a folder, a list in a text file, or a video; read one at a time, as often as needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from trt_blendmask.calibrate.diverse import MOST_CANDIDATES, describe, farthest
from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.files import existing_file, is_folder
from trt_blendmask.layout import counted
from trt_blendmask.runtime.images import SUFFIXES, natural_key, read_image
from trt_blendmask.runtime.sources import open_source
from trt_blendmask.structures import U8

LISTS = (".txt", ".lst", ".list")  # suffixes of files with a path per line
MIN_PICTURES = 32  # fewer say too little about what values come


@dataclass(frozen=True)
class Picture:
    """One of the pictures: its number among all, its name, the hash of its file (of its pixels in a video), its pixels
    (uint8 [H, W, 3] BGR), or None where it cannot be decoded."""

    index: int
    name: str
    sha256: str
    image: U8 | None

    @property
    def is_blank(self) -> bool:
        """Whether it shows one colour, such as black, and nothing else."""
        return self.image is not None and float(cv2.meanStdDev(self.image)[1].max()) < 1


class Pictures(Protocol):
    """Attributes: total: how many there are, None where only reading them all tells; moves: whether it is a video."""

    total: int | None
    moves: bool

    def read(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        """Those with the numbers `wanted`, None for all, in order."""
        ...


def open_pictures(text: str) -> Pictures:
    """What the user named: a folder, a text file with a path per line (relative to it), a video or synthetic:conveyor.

    Raises:
        InputMissingError: no such file or folder, or one without pictures.
        DataError, UsageError: a file that is neither.
    """
    path = Path(text)
    if path.suffix.lower() in LISTS:
        file = existing_file(path, "a list of pictures", "Write one path per line.")
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"Expected a list with one path per line, but '{file}' is no text.") from error
        entries = [line.strip() for line in lines]
        return _Files(text, [file.parent / entry for entry in entries if entry and not entry.startswith("#")])
    if is_folder(path):
        try:
            files = [f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
        except OSError as error:
            raise InputMissingError(
                f"Expected pictures in the folder '{path}', but it cannot be read: {error.strerror}. Check who may "
                "read it, or name another folder."
            ) from error
        return _Files(text, sorted(files, key=natural_key))
    return _Video(text)


def left_out(unreadable: int) -> str:
    """The note on pictures that cannot be decoded."""
    return f"{counted(unreadable, 'picture')} cannot be read and {'was' if unreadable == 1 else 'were'} left out."


def choose(pictures: Pictures, n: int, diverse: bool, tick: Callable[[], None]) -> list[int]:
    """Numbers of at most `n` pictures, ascending: the most different ones, or evenly spread ones.

    `tick` is called for every picture that is looked at to find out.
    """
    if not diverse:
        total = pictures.total if pictures.total is not None else sum(1 for _ in pictures.read())
        return [i * total // min(n, total) for i in range(min(n, total))]
    numbers: list[int] = []
    rows: list[U8] = []
    every = 1
    for picture in pictures.read():
        tick()
        if picture.index % every or picture.image is None or picture.is_blank:
            continue
        numbers.append(picture.index)
        rows.append(describe(picture.image))
        if len(rows) > MOST_CANDIDATES:  # a video of hours: every second, fourth, ... frame will do
            keep = [i for i, number in enumerate(numbers) if number % (2 * every) == 0]
            numbers, rows, every = [numbers[i] for i in keep], [rows[i] for i in keep], 2 * every
    return sorted(numbers[row] for row in farthest(np.stack(rows), n, MIN_PICTURES)) if rows else []


class _Files:
    moves = False

    def __init__(self, text: str, files: list[Path]) -> None:
        if not files:
            raise InputMissingError(
                f"Expected pictures in '{text}', but there are none ({', '.join(SUFFIXES)}). Name a folder that has "
                "some, a list of paths or a video."
            )
        self._files = files
        self.total: int | None = len(files)

    def read(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        for index, file in enumerate(self._files):
            if wanted is None or index in wanted:
                try:
                    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
                    image = read_image(file)
                except (OSError, ValueError, DataError, InputMissingError):
                    sha256, image = "", None
                yield Picture(index, str(file), sha256, image)


class _Video:
    moves = True

    def __init__(self, text: str) -> None:
        self._text = text
        with closing(open_source(text)) as source:
            if source.live:
                raise UsageError(f"Expected pictures or a video, but '{source.name}' is a camera. Record it to a file.")
            self.total: int | None = source.frame_count

    def read(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        last = max(wanted, default=-1) if wanted is not None else None
        with closing(open_source(self._text)) as source:
            for frame in source:
                if last is not None and frame.index > last:
                    return
                if wanted is None or frame.index in wanted:
                    pixels = hashlib.sha256(f"{frame.image.shape}".encode() + frame.image.tobytes()).hexdigest()
                    yield Picture(frame.index, f"frame {frame.index}", pixels, frame.image)
