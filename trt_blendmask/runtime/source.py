"""Where frames come from: a video file, a folder of pictures, one picture, or the synthetic conveyor belt."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

import av
import cv2
import numpy as np

from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.files import existing_file
from trt_blendmask.runtime.images import MAX_PIXELS, SUFFIXES, natural_key, read_image
from trt_blendmask.structures import U8, Frame

PICTURES_FPS = 10.0  # a folder has no clock: slow enough to look at each picture
SYNTHETIC = "synthetic:conveyor"
TAKES = f"a video file, a folder of pictures, one picture, a quoted pattern such as 'frames/*.png', or {SYNTHETIC}"

# Only formats that hold the pictures themselves: a playlist could make us open other files or addresses.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mjpeg,h264,hevc,m4v,ivf,obu,gif,mpjpeg,yuv4mpegpipe,wtv,mxf"


class Source(Protocol):
    """Frames in order, once.

    Attributes:
        name: what the user typed.
        fps: nominal frames per second.
        frame_count: how many are expected, or None where that is not known.
        corrupt: frames met so far that could not be decoded and were left out.
    """

    name: str
    fps: float
    frame_count: int | None
    corrupt: int

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...


def open_source(text: str) -> Source:
    """Open what the user named.

    Raises:
        InputMissingError: no such file or folder, or a folder that is not readable or without pictures.
        DataError: a file that holds no video.
        UsageError: a kind of source that this version does not take, or wrong synthetic options.
    """
    if text.startswith("synthetic:"):
        return SyntheticSource(text)
    path, exists = Path(text), os.access(text, os.F_OK)  # Path.exists raises for a name that is too long
    if exists and path.is_dir():
        return PictureSource(text, _pictures(path))
    if not exists and any(c in text for c in "*[") and "://" not in text:
        return PictureSource(text, list(path.parent.glob(path.name)))
    if not exists and ("://" in text or text.isdecimal() or text.startswith("/dev/")):
        raise UsageError(f"This version takes {TAKES}; got '{text}'. Record the camera to a file first.")
    if path.suffix.lower() in SUFFIXES:
        return PictureSource(text, [existing_file(path, "a picture", f"A source is {TAKES}.")])
    return VideoSource(text)


def _pictures(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    except OSError as error:
        raise InputMissingError(f"The folder '{folder}' cannot be read: {error.strerror}. Check it.") from error


class VideoSource:
    """A video file, decoded by FFmpeg at its own size and turned upright where the file says so."""

    def __init__(self, text: str) -> None:
        self.name, self.corrupt = text, 0
        path = existing_file(text, "a video", f"A source is {TAKES}.")
        try:
            self._container = av.open(
                f"file:{path}",  # else FFmpeg reads 12:30.mp4 as an address
                options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            )
        except (av.FFmpegError, ValueError) as error:
            raise self._undecodable(_reason(error)) from error
        if not self._container.streams.video:
            self._container.close()
            raise self._undecodable("it holds no video")
        self._video = self._container.streams.video[0]
        width, height = self._video.codec_context.width, self._video.codec_context.height
        if width * height > MAX_PIXELS:
            self._container.close()
            raise self._undecodable(f"its frames of {width} x {height} are too large")
        self._video.thread_type = "AUTO"
        self.fps = float(self._video.average_rate or self._video.guessed_rate or 25)
        self.frame_count: int | None = self._video.frames or None

    def __iter__(self) -> Iterator[Frame]:
        index, start_s = 0, 0.0
        for decoded in self._decoded():
            image = _upright(decoded)
            time_s = float(decoded.time) if decoded.time is not None else start_s + index / self.fps
            start_s = time_s if index == 0 else start_s
            yield Frame(image, index, time_s - start_s)
            index += 1
        if index == 0:
            raise self._undecodable("not one frame could be decoded")

    def close(self) -> None:
        self._container.close()

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._video)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError):
                self.corrupt += 1  # the file breaks off: what was decoded so far stands
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except (av.FFmpegError, ValueError):
                self.corrupt += 1

    def _undecodable(self, why: str) -> DataError:
        return DataError(f"Expected a video in '{self.name}', but {why}. Check that a player shows it.")


class PictureSource:
    """Pictures as frames, in natural order of their names."""

    def __init__(self, text: str, files: list[Path]) -> None:
        if not files:
            raise InputMissingError(f"Expected pictures in '{text}', but there are none ({', '.join(SUFFIXES)}).")
        self.name, self.fps, self.corrupt = text, PICTURES_FPS, 0
        self._files = sorted(files, key=natural_key)
        self.frame_count: int | None = len(files)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for file in self._files:
            try:
                image = read_image(file)
            except DataError:
                self.corrupt += 1
                if self.corrupt == len(self._files):
                    raise
                continue
            yield Frame(image, index, index / self.fps, file.name)
            index += 1

    def close(self) -> None:
        pass


class SyntheticSource:
    """`synthetic:conveyor[?seed=1&fps=25&size=1024x576&seconds=10]`: parts on a moving belt, rendered as asked."""

    def __init__(self, text: str) -> None:
        from trt_blendmask.synthetic import Conveyor

        base, _, query = text.partition("?")
        options = {"seed": "1", "fps": "25", "size": "1024x576", "seconds": "10"}
        given = dict(parse_qsl(query, keep_blank_values=True))
        try:
            if base != SYNTHETIC or set(given) - set(options):
                raise ValueError
            options |= given
            seed, self.fps, seconds = int(options["seed"]), float(options["fps"]), float(options["seconds"])
            width, height = (int(n) for n in options["size"].lower().split("x"))
            in_range = seed >= 0 and 0 < self.fps <= 1000 and 0 < seconds <= 86400
            if not in_range or width < 64 or height < 36 or width * height > MAX_PIXELS:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"Expected {SYNTHETIC}[?seed=1&fps=25&size=1024x576&seconds=10], with values above 0, got '{text}'."
            ) from None
        self.name, self.corrupt = text, 0
        self._belt = Conveyor(seed, (width, height), self.fps)
        self.frame_count: int | None = max(1, int(seconds * self.fps + 0.5))

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frame_count or 0):
            yield Frame(np.ascontiguousarray(self._belt.frame(index).image), index, index / self.fps)

    def close(self) -> None:
        pass


def _upright(decoded: Any) -> U8:
    """The picture as BGR, turned by quarters as the file asks a player to (FFmpeg's display matrix)."""
    image = decoded.to_ndarray(format="bgr24")
    matrices = [bytes(data) for data in decoded.side_data if data.type.name == "DISPLAYMATRIX"]
    if matrices:
        cos, sin = np.frombuffer(matrices[0], dtype=np.int32)[:2].tolist()
        clockwise = round(math.degrees(math.atan2(sin, cos)) / 90) % 4
        turns = (None, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
        if (turn := turns[clockwise]) is not None:
            image = cv2.rotate(image, turn)
    return np.asarray(image, dtype=np.uint8)


def _reason(error: Exception) -> str:
    return f"FFmpeg says: {getattr(error, 'strerror', None) or error}"
