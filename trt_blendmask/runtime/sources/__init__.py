"""Where frames come from: files, cameras and addresses, opened by one function."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from dataclasses import replace
from itertools import chain, count

from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import camera, network
from trt_blendmask.runtime.sources.connection import Connect, Connection
from trt_blendmask.runtime.sources.files import VideoSource
from trt_blendmask.runtime.sources.grammar import SourceAddress, parse
from trt_blendmask.runtime.sources.live import LiveOptions, LiveSource
from trt_blendmask.runtime.sources.pictures import PictureSource
from trt_blendmask.runtime.sources.protocol import Source, SourceState
from trt_blendmask.runtime.sources.stdin import connect_stdin
from trt_blendmask.runtime.sources.synthetic import Belt, BeltCamera, SyntheticSource

__all__ = ["LiveOptions", "Source", "SourceState", "open_source"]

_LATER_S = 0.5  # FFmpeg's own limit for a read comes so much after ours, which has the better name for it


def open_source(
    text: str, options: LiveOptions | None = None, events: Events | None = None, taken: Collection[str] = ()
) -> Source:
    """Open what the user named; a camera or address is opened in the background, and waited for while iterating.

    Args:
        text: as `trt_blendmask.runtime.sources.grammar.TAKES` says.
        options: for sources that may break. events: told what happens to the source.
        taken: names of other sources; one of these gets a number behind it, as in "rtsp://host/.../main (2)".

    Raises:
        InputMissingError: no such file or folder, or a folder that is not readable or without pictures.
        DataError: a file that holds no video.
        UsageError: no such kind of source, or options it does not take.
        SourceUnavailableError: something it needs is not there.
    """
    address, options, events = parse(text), options or LiveOptions(), events or Events()
    others = (f"{address.name} ({number})" for number in count(2))
    address = replace(address, name=next(name for name in chain([address.name], others) if name not in taken))
    if address.kind == "video":
        return VideoSource(address, events)
    if address.kind == "pictures":
        return PictureSource(address, events)
    if address.kind == "stdin":
        return LiveSource(address.name, connect_stdin, replace(options, open_s=math.inf), events, live=False)
    if address.kind == "synthetic":
        belt = Belt(address)
        if not belt.live:
            return SyntheticSource(belt)
        return LiveSource(address.name, lambda left: BeltCamera(belt, left), options, events)
    return LiveSource(address.name, _connect(address, options), options, events)


def _connect(address: SourceAddress, options: LiveOptions) -> Connect:
    """How a line to a camera or an address is opened."""
    open_s, read_s = options.open_s, options.stale_s + _LATER_S
    if address.kind == "rtsp":
        return lambda left: network.connect_rtsp(address, open_s, read_s, left)
    if address.kind == "http":
        return lambda left: network.connect_http(address, open_s, read_s, left)
    if address.kind == "v4l2":
        device = camera.V4l2(address)
        return lambda left: device.connect(open_s, read_s, left)
    is_csi = address.kind == "csi"
    pipeline = camera.csi_pipeline(address) if is_csi else camera.gst_pipeline(address)
    camera.check_gstreamer(address.name)

    def start(_left: threading.Event) -> Connection:
        return camera.GstLine(pipeline, is_csi)

    return start
