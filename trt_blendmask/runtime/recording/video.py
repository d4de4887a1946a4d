"""One video file that plays while it grows, after a kill, and on a full disk as far as it got."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from trt_blendmask.errors import OutputError, UsageError
from trt_blendmask.runtime.recording.growing import GrowingFile
from trt_blendmask.structures import U8

VIDEO_SUFFIXES = (".mp4", ".mkv")
KEY_S = 1.0  # between frames at which a player can start
LONGEST_GAP_S = 3600.0  # between frames: from 2^31 ticks on (6.6 h), FFmpeg's MP4 puts all that follow into one moment
_BT601 = 6  # AVCOL_SPC_SMPTE170M: the matrix that OpenCV converts with
_INTRA = 1  # AV_PICTURE_TYPE_I
_HYBRID_SINCE = (61, 7)  # libavformat of FFmpeg 7.1: fragments while recording, an ordinary file once closed


@dataclass(frozen=True)
class Encoder:
    """An encoder of FFmpeg.

    Attributes:
        name: FFmpeg's. format: what comes out, for people. ticks: of its clock, per second. max_side: pixels.
        by_quality: whether it holds a quality; else it needs to be told a bit rate.
        options: its own, by name.
    """

    name: str
    format: str
    ticks: int
    max_side: int
    by_quality: bool
    options: dict[str, str]


# No frame waits for later ones: those in the encoder would be lost, and at one frame a second they are many seconds.
ENCODERS = (
    Encoder(
        "libx264",
        "H.264",
        90_000,  # exact for 25, 30, 30000/1001, ... and fine enough for any camera's clock
        16384,
        True,
        {"crf": "21", "preset": "veryfast", "tune": "zerolatency", "forced-idr": "1", "g": "600"},
    ),
    Encoder("libopenh264", "H.264", 90_000, 3840, False, {"g": "600"}),
    Encoder("mpeg4", "MPEG-4 Visual", 60_000, 8190, False, {"g": "600", "bf": "0"}),  # its clock has 16 bits
)


def check_video_name(path: Path) -> None:
    """Refuse a file name that no video writer here stands for, before any work is done.

    Raises:
        UsageError: another suffix than those of `VIDEO_SUFFIXES`.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"Expected a video name ending in {' or '.join(VIDEO_SUFFIXES)}, got '{path}'.")


def choose_encoder() -> Encoder:
    """The best of `ENCODERS` that this FFmpeg has.

    Raises:
        OutputError: it has none.
    """
    for encoder in ENCODERS:
        try:
            av.codec.Codec(encoder.name, "w")
        except ValueError:
            continue
        return encoder
    raise OutputError(
        f"Expected one of the video encoders {', '.join(e.name for e in ENCODERS)} in this FFmpeg, got none: install "
        "PyAV's wheel (pip install av), or leave out --save."
    )


def shortcomings(path: Path, encoder: Encoder) -> str:
    """What a video at `path` will lack here, a sentence; "" where nothing."""
    lacks = []
    if encoder.format != "H.264":
        lacks.append(f"this FFmpeg has no H.264 encoder, so it will be {encoder.format}")
    if path.suffix.lower() == ".mp4" and not _has_hybrid():
        lacks.append("FFmpeg before 7.1 leaves an MP4 in fragments; where a player minds, save as .mkv")
    return f"{path}: {'; '.join(lacks)}" if lacks else ""


class VideoFile:
    """Writes frames of one size as yuv420p, so that every player shows them, with the times they had in the source.

    An odd width or height gets one more column or row, a copy of the last, because yuv420p needs even sizes and
    resampling would blur.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        frame_wh: tuple[int, int],
        pixel_aspect: Fraction = Fraction(1),
        encoder: Encoder | None = None,
    ) -> None:
        """Create or empty `path` for frames of that width and height in pixels, nominally `fps` a second, each pixel to
        be shown `pixel_aspect` times as wide as high.

        Raises:
            OutputError: the file cannot be written, or not with frames of that size, or there is no encoder.
        """
        self._path, self._encoder = path, encoder or choose_encoder()
        self._last = -1
        self._key_s = -KEY_S
        self._told = False
        width, height = frame_wh
        if max(width, height) > self._encoder.max_side:
            raise OutputError(
                f"{self._encoder.format} holds frames of at most {self._encoder.max_side} pixels a side, got {width} x "
                f"{height} for '{path}'. Scale the source down first, or leave out --save."
            )
        self._add_wh = (width % 2, height % 2)
        try:
            self._file = GrowingFile(path)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._container = av.open(self._file, "w", *_container_options(path))
            self._video = self._add_video(fps, (width + width % 2, height + height % 2))
            self._video.codec_context.sample_aspect_ratio = pixel_aspect
        except (av.FFmpegError, ValueError) as error:
            self._file.close()
            raise self._failed(error) from error

    def write(self, image: U8, time_s: float) -> None:
        """Append `image`, uint8 [H, W, 3] BGR, shown from `time_s` on (0: the start of the file); at most
        `LONGEST_GAP_S` after the one before.

        Raises:
            OutputError: the encoder or the disk refuses; what was written before can be played.
        """
        whole = self._file.tell()
        try:
            picture = av.VideoFrame.from_ndarray(self._planes(image), format="yuv420p")
            self._last = max(self._last + 1, round(time_s * self._encoder.ticks))
            picture.pts, picture.time_base = self._last, Fraction(1, self._encoder.ticks)
            picture.colorspace, picture.color_range = _BT601, 1
            if time_s - self._key_s >= KEY_S:
                picture.pict_type, self._key_s = _INTRA, time_s
            for packet in self._video.encode(picture):
                self._container.mux(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._file.cut(whole)
            self._told = True
            raise self._failed(error) from error

    def close(self) -> None:
        """Finish the file; one that could not be written before stays as it is.

        Raises:
            OutputError: the disk refuses.
        """
        whole = self._file.tell()
        try:
            try:
                for packet in self._video.encode():
                    self._container.mux(packet)
                self._container.close()
            except (av.FFmpegError, OSError, ValueError):
                if not self._told:  # FFmpeg takes nothing more after an error, and says it again
                    self._file.cut(whole)
                    raise
            finally:
                self._file.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._failed(error) from error

    def _add_video(self, fps: float, wh: tuple[int, int]) -> Any:
        video = self._container.add_stream(self._encoder.name, rate=Fraction(fps).limit_denominator(1001))
        video.width, video.height, video.pix_fmt = *wh, "yuv420p"
        video.codec_context.time_base = Fraction(1, self._encoder.ticks)
        video.codec_context.colorspace, video.codec_context.color_range = _BT601, 1
        if not self._encoder.by_quality:
            video.bit_rate = round(min(max(0.2 * wh[0] * wh[1] * fps, 2e5), 5e7))
        video.options = dict(self._encoder.options)
        return video

    def _planes(self, image: U8) -> U8:
        add_width, add_height = self._add_wh
        if add_width or add_height:
            padded = cv2.copyMakeBorder(image, 0, add_height, 0, add_width, cv2.BORDER_REPLICATE)
            image = np.asarray(padded, dtype=np.uint8)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), dtype=np.uint8)

    def _failed(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"Cannot write the video '{self._path}': {reason}. Choose another place with --save.")


def _has_hybrid() -> bool:
    return bool(av.library_versions["libavformat"] >= _HYBRID_SINCE)


def _container_options(path: Path) -> tuple[str, dict[str, str]]:
    """FFmpeg's name of the format of `path`, and its options: each frame goes to the file when the next one comes."""
    if path.suffix.lower() == ".mkv":
        return "matroska", {"cluster_time_limit": "1", "flush_packets": "1"}
    flags = "hybrid_fragmented" if _has_hybrid() else "empty_moov+default_base_moof"
    return "mp4", {"movflags": f"{flags}+frag_every_frame", "flush_packets": "1"}
