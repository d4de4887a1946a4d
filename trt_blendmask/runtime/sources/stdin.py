"""Standard input as a source: what another program decodes or records, piped in."""

from __future__ import annotations

import os
import select
import threading

import av

from trt_blendmask.errors import DataError
from trt_blendmask.runtime.sources.connection import Connection, Decoded
from trt_blendmask.runtime.sources.decode import BEHIND, FORMATS, Shot
from trt_blendmask.runtime.sources.reasons import LostError, loss_of

_POLL_S = 0.1
_CHUNK = 1 << 20  # a frame of yuv4mpeg has megabytes


def connect_stdin(left: threading.Event, descriptor: int = 0) -> Connection:
    """Read MJPEG, yuv4mpeg, MPEG-TS or another video that needs no seeking, until its end.

    Raises:
        DataError: nothing came, or no video.
    """
    pipe = _Pipe(descriptor, left)
    head = pipe.peek(10)
    form = "yuv4mpegpipe" if head.startswith(b"YUV4MPEG2") else "mjpeg" if head.startswith(b"\xff\xd8") else None
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "pipe"}
    try:
        container = av.open(pipe, format=form, options=options, buffer_size=_CHUNK)
        return _Once(container, True, left, pipe.behind)
    except (av.FFmpegError, LookupError, ValueError):
        raise _no_video("what came is none" if head else "nothing came") from None


class _Once(Decoded):
    """A line that cannot be opened again: where it breaks before its first picture, there is none."""

    _shown = False

    def read(self) -> Shot | None:
        try:
            shot = super().read()
        except (av.FFmpegError, LostError, ValueError) as error:
            if self._shown:
                raise
            raise _no_video(loss_of(error).text) from error
        self._shown = True
        return shot


def _no_video(why: str) -> DataError:
    return DataError(
        f"Expected a video on standard input, but {why}. Name the file, or pipe in MJPEG, yuv4mpeg or MPEG-TS."
    )


class _Pipe:
    """What FFmpeg reads from; gives up waiting when `left` is set."""

    def __init__(self, descriptor: int, left: threading.Event) -> None:
        self._descriptor, self._left = descriptor, left
        self._head = self._tail = b""
        self._came = 0  # bytes so far

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (more := self._more(size - len(self._head))):
            self._head += more
        return self._head

    def read(self, size: int) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._more(size)

    def behind(self, at: int) -> bytes:
        """What came from byte `at` on; the end of it, where it is longer than `BEHIND`."""
        return self._tail[-(self._came - at) :] if self._came > at else b""

    def _more(self, size: int) -> bytes:
        while not self._left.is_set():
            if select.select([self._descriptor], [], [], _POLL_S)[0]:
                content = os.read(self._descriptor, size)
                self._came += len(content)
                self._tail = (self._tail + content[-BEHIND:])[-BEHIND:]
                return content
        return b""
