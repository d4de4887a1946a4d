"""Where results go: an H.264 video with the overlay, and one line of JSON per frame."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from trt_blendmask.errors import OutputError, UsageError
from trt_blendmask.runtime.letterbox import resize
from trt_blendmask.structures import U8, Frame, Letterbox

VIDEO_SUFFIXES = (".mp4", ".mkv")
_TICKS = 90_000  # per second: exact for 25, 30, 30000/1001, ... and fine enough for any camera's clock
_MAX_SIDE = 16384
_BT601 = 6  # AVCOL_SPC_SMPTE170M: the matrix that OpenCV converts with


def check_video_name(path: Path) -> None:
    """Refuse a file name that no video writer here stands for, before any work is done.

    Raises:
        UsageError: another suffix than those of `VIDEO_SUFFIXES`.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"Expected a video name ending in {' or '.join(VIDEO_SUFFIXES)}, got '{path}'.")


class VideoSink:
    """Writes frames as H.264 (yuv420p, so that every player shows it) with the times they had in the source.

    The first frame sets the size; a frame of another size is scaled to fit. An odd width or height gets one more
    column or row, a copy of the last, because yuv420p needs even sizes and resampling would blur.
    """

    def __init__(self, path: Path, fps: float, title: Path | None = None) -> None:
        """Open `path`; messages name `title` where `path` is only a temporary name of it.

        Raises:
            OutputError: the file cannot be written, or this FFmpeg has no H.264 encoder.
        """
        self._title = title or path
        self._fps = Fraction(fps).limit_denominator(1001)
        self._wh = (0, 0)
        self._last = -1
        self._start_s = 0.0
        self._video: Any = None
        try:
            options = {"movflags": "faststart"} if path.suffix.lower() == ".mp4" else {}
            self._container = av.open(f"file:{path}", "w", options=options)
        except (av.FFmpegError, ValueError) as error:
            raise self._failed(error) from error

    def write(self, image: U8, time_s: float) -> None:
        """Append `image`, uint8 [H, W, 3] BGR, shown from `time_s` on (the first frame's time is the start).

        Raises:
            OutputError: the encoder or the disk refuses.
        """
        try:
            if self._video is None:
                self._start_s = time_s
                self._open_video(image)
            picture = av.VideoFrame.from_ndarray(self._even(image), format="yuv420p")
            self._last = max(self._last + 1, round((time_s - self._start_s) * _TICKS))
            picture.pts, picture.time_base = self._last, Fraction(1, _TICKS)
            picture.colorspace, picture.color_range = _BT601, 1
            for packet in self._video.encode(picture):
                self._container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Flush the encoder and finish the file.

        Raises:
            OutputError: the disk refuses.
        """
        try:
            if self._video is not None:
                for packet in self._video.encode():
                    self._container.mux(packet)
                self._video = None
            self._container.close()
        except (av.FFmpegError, ValueError) as error:
            raise self._failed(error) from error

    def _open_video(self, image: U8) -> None:
        height, width = image.shape[:2]
        if max(width, height) > _MAX_SIDE:
            raise OutputError(
                f"H.264 holds frames of at most {_MAX_SIDE} pixels a side, got {width} x {height} for '{self._title}'. "
                "Scale the source down first, or leave out --save."
            )
        self._wh = (width, height)
        video = self._container.add_stream("libx264", rate=self._fps)
        video.width, video.height, video.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        video.codec_context.time_base = Fraction(1, _TICKS)
        video.codec_context.colorspace, video.codec_context.color_range = _BT601, 1
        video.options = {"crf": "20", "preset": "veryfast"}
        self._video = video

    def _even(self, image: U8) -> U8:
        width, height = self._wh
        if image.shape[:2] != (height, width):
            scaled = resize(image, Letterbox((image.shape[1], image.shape[0]), (height, width)).scaled_wh)
            image = np.zeros((height, width, 3), dtype=np.uint8)
            image[: scaled.shape[0], : scaled.shape[1]] = scaled
        if width % 2 or height % 2:
            padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            image = np.asarray(padded, dtype=np.uint8)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), dtype=np.uint8)

    def _failed(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"Cannot write the video '{self._title}': {reason}. Choose another place with --save.")


class JsonLinesSink:
    """One line per frame: {"frame", "time_s", "detections": COCO results}; "file_name" where frames are files."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")  # \udc80: a name that is not UTF-8

    def write(self, frame: Frame, detections: list[dict[str, Any]]) -> None:
        line: dict[str, Any] = {"frame": frame.index, "time_s": round(frame.time_s, 6)}
        if frame.name:
            line["file_name"] = frame.name
        self._file.write(json.dumps(line | {"detections": detections}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()
