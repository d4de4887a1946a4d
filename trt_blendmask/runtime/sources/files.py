"""A video file as a source."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import av

from trt_blendmask.errors import DataError
from trt_blendmask.files import existing_file
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.images import MAX_PIXELS
from trt_blendmask.runtime.sources.decode import BEHIND, FORMATS, Decoder, Shot
from trt_blendmask.runtime.sources.grammar import TAKES, SourceAddress
from trt_blendmask.runtime.sources.protocol import Recorded
from trt_blendmask.runtime.sources.reasons import Loss, LostError, loss_of, tell_cut_short
from trt_blendmask.runtime.sources.stamp import Stamp
from trt_blendmask.structures import Frame


class VideoSource(Recorded):
    """A video file, decoded by FFmpeg at its own size and turned upright where the file says so."""

    def __init__(self, address: SourceAddress, events: Events) -> None:
        super().__init__(address.name)
        self._stamp, self._closed, self._events = Stamp(self.name, events.publish), threading.Event(), events
        self._loss: Loss | None = None
        path = existing_file(address.target, "a video", f"A source is {TAKES}.")
        try:
            self._container = av.open(
                f"file:{path}",  # else FFmpeg reads 12:30.mp4 as an address
                options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
            )
        except (av.FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) == errno.EINVAL:
                raise self._undecodable(loss_of(error).text) from error
            raise self._undecodable(f"FFmpeg says: {getattr(error, 'strerror', None) or error}") from error
        try:
            self._decoder = Decoder(self._container, False, self._closed, lambda at: _behind(path, at))
            video = self._container.streams.video[0]
            if video.codec_context.width * video.codec_context.height > MAX_PIXELS:
                raise LookupError(
                    f"its frames of {video.codec_context.width} x {video.codec_context.height} are too large"
                )
        except LookupError as error:
            self._container.close()
            raise self._undecodable(str(error)) from None
        self.fps = self._decoder.fps or 25.0
        self.frame_count: int | None = video.frames or None
        self._using = threading.Lock()  # held while FFmpeg works: closing then would pull the file from under it

    def __iter__(self) -> Iterator[Frame]:
        while (shot := self._read()) is not None:
            frame = self._stamp.recorded(shot, self.fps)
            self.corrupt = self._decoder.damaged + self._stamp.corrupt
            yield frame
        self.corrupt = self._decoder.damaged + self._stamp.corrupt
        if self._stamp.count == 0 and not self._closed.is_set():
            raise self._undecodable("not one frame could be decoded")
        if self._loss is not None:
            self.cut_short = tell_cut_short(self.name, self._loss, self._events)
        self._end()

    def close(self) -> None:
        self._closed.set()  # before the lock, which a busy reader would take again and again
        with self._using:
            self._container.close()

    def _read(self) -> Shot | None:
        with self._using:
            if self._closed.is_set():
                return None
            try:
                return self._decoder.read()
            except LostError as error:
                self._loss = error.loss
                return None
            except (av.FFmpegError, ValueError):  # the file breaks off: what was decoded so far stands
                self._decoder.damaged += 1
                return None

    def _undecodable(self, why: str) -> DataError:
        return DataError(f"Expected a video in '{self.name}', but {why}. Check that a player shows it.")


def _behind(path: Path, at: int) -> bytes:
    if not path.is_file():  # a pipe that has a name
        return b""
    with path.open("rb") as file:
        file.seek(at)
        return file.read(BEHIND)
