"""Cameras and recordings behind an address: RTSP, HTTP MJPEG and HLS, by FFmpeg with deadlines."""

from __future__ import annotations

import threading
import time

import av

from trt_blendmask.runtime.sources.connection import Connection, Decoded
from trt_blendmask.runtime.sources.decode import FORMATS, Shot
from trt_blendmask.runtime.sources.grammar import SourceAddress

# FFmpeg would look on for seconds before it hands over the first frame: at most one, and three frames for the rate.
_PROBE = {"analyzeduration": "1000000", "fpsprobesize": "3"}
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
    """Play an HTTP address: MJPEG, HLS, or a recording, which is one that knows its length."""
    options = {
        "protocol_whitelist": _PROTOCOLS,
        "format_whitelist": f"{FORMATS},hls",
        **_PROBE,
    }
    container = av.open(address.target, options=options, timeout=(open_s, read_s))
    recorded = container.duration is not None and container.duration > 0
    line = Decoded(container, recorded, left)
    return Paced(line, left) if container.format.name.startswith("hls") and not recorded else line


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
        return Shot(shot.image, shot.pts_s, time.monotonic(), shot.corrupt)
