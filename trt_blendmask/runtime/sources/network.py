"""Cameras and recordings behind an address: RTSP, HTTP MJPEG and HLS, by FFmpeg with deadlines."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import replace
from typing import Any

import av

from trt_blendmask.runtime.sources.connection import Connection, Decoded
from trt_blendmask.runtime.sources.decode import FORMATS, Shot
from trt_blendmask.runtime.sources.grammar import SourceAddress
from trt_blendmask.runtime.sources.reasons import STILL, LostError

# FFmpeg would look on for seconds before it hands over the first frame: at most one, and three frames for the rate.
_PROBE = {"analyzeduration": "1000000", "fpsprobesize": "3"}
_BARE = ("mjpeg", "jpeg_pipe")
_PROTOCOLS = "http,https,tcp,tls,crypto,httpproxy"  # no file: a playlist must not read ours


def connect_rtsp(address: SourceAddress, open_s: float, read_s: float, left: threading.Event) -> Connection:
    """Play an RTSP address: over TCP, or UDP where `transport=udp` says so.

    Args:
        open_s, read_s: how long to wait for the answer and for each packet, seconds.
    """
    options = {
        "rtsp_transport": address.options.get("transport", "tcp"),
        "allowed_media_types": "video",
        "protocol_whitelist": "rtsp,rtsps,rtp,srtp,udp,tcp,tls",
        **_PROBE,
    }
    return Decoded(av.open(address.target, format="rtsp", options=options, timeout=(open_s, read_s)), False, left)


def connect_http(address: SourceAddress, open_s: float, read_s: float, left: threading.Event) -> Connection:
    """Play an HTTP address: MJPEG, HLS, or a recording, which is one that knows how long it lasts."""
    end_s = time.monotonic() + open_s
    try:
        container = _open_http(address.target, open_s, read_s)
    except ValueError as error:  # PyAV's errors of data and of arguments, which have had several names
        if (rest_s := end_s - time.monotonic()) < open_s / 2:
            raise
        try:  # it may be parts with headers that FFmpeg refuses: this finds the JPEGs in whatever comes
            container = _open_http(address.target, rest_s, read_s, "mjpeg")
        except av.FFmpegError:
            raise error from None
    if container.format.name in _BARE:
        return Bare(container, False, left)
    recorded = container.duration is not None and container.duration > 0
    line = Decoded(container, recorded, left)
    return Paced(line, left) if container.format.name.startswith("hls") and not recorded else line


def _open_http(url: str, open_s: float, read_s: float, form: str | None = None) -> Any:
    options = {"protocol_whitelist": _PROTOCOLS, "format_whitelist": f"{FORMATS},hls", **_PROBE}
    container = av.open(url, format=form, options=options, timeout=(open_s, read_s))
    if container.format.name in ("mjpeg", "mpjpeg") and not container.streams.video[0].codec_context.width:
        container.close()
        raise av.InvalidDataError(errno.EINVAL, "none of these bytes is a picture")
    return container


class Bare(Decoded):
    """JPEGs with nothing between them. The first waits for the second: if none comes, it was no video."""

    _begun = False
    _second: Shot | None = None

    def read(self) -> Shot | None:
        if self._begun:
            shot, self._second = self._second, None
            return shot or super().read()
        self._begun = True
        if (first := super().read()) is not None:
            try:
                self._second = super().read()
            except av.FFmpegError as error:
                if error.errno != errno.EIO:  # what FFmpeg makes of an end that nobody had told it the place of
                    raise
            if self._second is None and not self._left.is_set():
                raise LostError(STILL)
        return first


class Paced:
    """A live line whose pictures come in heaps (HLS: a segment at a time), handed out at the speed they were taken."""

    ends = lossless = False

    def __init__(self, line: Connection, left: threading.Event) -> None:
        self._line, self._left = line, left
        self.fps, self.close = line.fps, line.close
        self._offset_s: float | None = None

    @property
    def damaged(self) -> int:
        return self._line.damaged

    @property
    def heard_s(self) -> float:
        return self._line.heard_s

    def read(self) -> Shot | None:
        shot = self._line.read()
        if shot is None or shot.pts_s is None:
            return shot
        now_s = time.monotonic()
        early_s = shot.pts_s + (self._offset_s if self._offset_s is not None else now_s - shot.pts_s) - now_s
        if self._offset_s is None or not -1.0 < early_s < 30.0:  # the first, late by a hole, or another clock
            self._offset_s, early_s = now_s - shot.pts_s, 0.0
        self._left.wait(max(0.0, early_s))
        return replace(shot, captured_s=time.monotonic())
