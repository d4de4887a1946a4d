"""Cameras on this machine: V4L2 by FFmpeg, CSI and whatever GStreamer reaches by OpenCV."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from trt_blendmask.errors import SourceUnavailableError, UsageError
from trt_blendmask.runtime.sources.connection import Connection, Decoded
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.grammar import FORMS, SourceAddress, number, size_wh
from trt_blendmask.runtime.sources.reasons import Loss, LostError

_FORMATS = {"mjpg": "mjpeg", "mjpeg": "mjpeg", "yuyv": "yuyv422", "h264": "h264", "nv12": "nv12"}
_BY_ID = Path("/dev/v4l/by-id")
_SINK = "appsink drop=true max-buffers=1 sync=false"
_TO_BGR = f"videoconvert ! video/x-raw,format=BGR ! {_SINK}"


class V4l2:
    """Opens a video device, again and again; after unplugging, by its lasting name if it has one, because the number
    may change."""

    def __init__(self, address: SourceAddress) -> None:
        """Raises UsageError: options out of range."""
        self._device, self._options = Path(address.target), {}
        given = address.options
        if wh := size_wh(given):
            self._options["video_size"] = f"{wh[0]}x{wh[1]}"
        if "fps" in given:
            self._options["framerate"] = f"{number(given, 'fps', 30, 0, 1000):g}"
        if "format" in given:
            if given["format"].lower() not in _FORMATS:
                raise UsageError(
                    f"Expected {FORMS['v4l2']}, format {', '.join(_FORMATS)}; got '{given['format'][:40]}'."
                )
            self._options["input_format"] = _FORMATS[given["format"].lower()]

    def connect(self, open_s: float, read_s: float, left: threading.Event) -> Connection:
        try:
            container = av.open(str(self._device), format="v4l2", options=self._options, timeout=(open_s, read_s))
        except ValueError as error:
            if getattr(error, "errno", None) != errno.EINVAL:
                raise
            raise LostError(Loss("format", "the device does not offer this size, rate or format")) from error
        self._device = lasting_name(self._device)
        return Decoded(container, False, left)


def lasting_name(device: Path, by_id: Path = _BY_ID) -> Path:
    """The link to `device` that udev names after the camera itself, or `device` where there is none."""
    links = sorted(by_id.iterdir()) if by_id.is_dir() else []
    return next((link for link in links if link.resolve() == device.resolve()), device)


def csi_pipeline(address: SourceAddress) -> str:
    """The GStreamer pipeline of a Jetson's own camera connector.

    Raises:
        UsageError: options out of range.
    """
    width, height = size_wh(address.options) or (1920, 1080)
    rate = Fraction(number(address.options, "fps", 30, 0.001, 1000)).limit_denominator(1001)
    flip = int(number(address.options, "flip", 0, -1, 7))
    return (
        f"nvarguscamerasrc sensor-id={address.target} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate.numerator}/{rate.denominator} ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx ! {_TO_BGR}"
    )


def gst_pipeline(address: SourceAddress) -> str:
    """The user's pipeline, ended with a sink for us where it has none."""
    return address.target if "appsink" in address.target else f"{address.target} ! {_TO_BGR}"


def check_gstreamer(name: str) -> None:
    """Raises SourceUnavailableError: this OpenCV was built without GStreamer."""
    lines = cv2.getBuildInformation().splitlines()
    if not any("GStreamer" in line and "YES" in line for line in lines):
        raise SourceUnavailableError(
            f"'{name}' needs an OpenCV with GStreamer, and this one has none. Use JetPack's own (see OpenCV in the "
            "README), or pipe the camera in: gst-launch-1.0 ... ! jpegenc ! fdsink | trt-blendmask run MODEL -"
        )


class GstLine:
    """A connection through OpenCV's GStreamer."""

    ends, lossless, damaged = False, False, 0

    def __init__(self, pipeline: str, is_csi: bool, capture: Callable[..., Any] = cv2.VideoCapture) -> None:
        """Raises LostError: the pipeline does not start."""
        self._cure = ": sudo systemctl restart nvargus-daemon" if is_csi else ""
        self._capture = capture(pipeline, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            self._capture.release()
            raise LostError(Loss("error", f"the pipeline does not start{self._cure}"))
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None
        self.heard_s = time.monotonic()

    def read(self) -> Shot | None:
        ok, image = self._capture.read()
        self.heard_s = time.monotonic()
        if not ok or image is None:  # OpenCV does not say which: the end, an error or a timeout
            raise LostError(Loss("closed", f"the pipeline gives no more pictures{self._cure}"))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise LostError(Loss("format", "the pipeline gives no BGR pictures"))
        return Shot(image.copy(), None, self.heard_s, False)

    def close(self) -> None:
        self._capture.release()
