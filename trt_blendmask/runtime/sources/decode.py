"""Pictures out of what FFmpeg has opened."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from trt_blendmask.runtime.images import MAX_PIXELS
from trt_blendmask.runtime.sources.reasons import CUT_SHORT, Loss, LostError, loss_of
from trt_blendmask.structures import U8

# Only formats that hold the pictures themselves: a playlist could make us open other files or addresses.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mjpeg,jpeg_pipe,h264,hevc,m4v,ivf,obu,gif,mpjpeg,yuv4mpegpipe,wtv,mxf"
)
_CLOCKLESS = ("mjpeg", "mpjpeg", "jpeg_pipe", "h264", "hevc", "m4v", "obu")  # FFmpeg makes their times up, 25 a second
# A converter of its own for each frame, as `to_ndarray` makes one, starts a thread per core for each frame (PyAV 17).
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
_PATIENCE = 16  # errors in a row before all hope is lost
_TURNS = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)  # by one, two, three quarters
_DAMAGE = (av.InvalidDataError, av.ExternalError, av.BugError, av.PatchWelcomeError, ValueError)
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"  # what lies between holds neither
BEHIND = 80  # bytes; if there are more behind the last frame of yuv4mpeg, FFmpeg has told whether they begin one
_Y4M_FRAME = b"FRAME"
_LACK_S, _LACK_FRAMES = 1.0, 3  # tolerated shortfall at the end of a recording: the longer of the two
_NOT_ONE = (
    "it breaks off before its first frame, as an MP4 with its index at its end does in a pipe or from a server "
    "that sends no parts"
)


@dataclass(frozen=True)
class Shot:
    """A decoded picture, uint8 [H, W, 3] BGR.

    `pts_s` is its presentation time in seconds from an arbitrary start, None where the format has no clock;
    `captured_s` is `time.monotonic` at the arrival of its last packet; `pixel_aspect` is a pixel's width by its height.
    """

    image: U8
    pts_s: float | None
    captured_s: float
    corrupt: bool
    pixel_aspect: Fraction = Fraction(1)


class Decoder:
    """Reads the first video track of `container`; for one thread.

    Attributes:
        fps: nominal frames per second, None where the format does not say.
        damaged: packets so far of which no picture could be made, or JPEG that is cut short.
        heard_s: `time.monotonic` when the last packet came.
    """

    def __init__(
        self, container: Any, live: bool, left: threading.Event, behind: Callable[[int], bytes] | None = None
    ) -> None:
        """Give up reading when `left` is set. `live`: decode without delay, and take nothing but damage for a loss; a
        recording is read past its damage, however long that is. `behind`: what there is from a byte on, or `BEHIND`
        bytes of it.

        Raises:
            LookupError: no video in it.
        """
        if not container.streams.video:
            raise LookupError("it holds no video")
        self._live, self._left = live, left
        self._container, self._video = container, container.streams.video[0]
        self._video.thread_type = "SLICE" if live else "AUTO"  # threads per frame hold that many frames back
        rate = self._video.average_rate or self._video.guessed_rate
        self.fps = float(rate) if rate else None
        self.damaged = 0
        self.heard_s = time.monotonic()
        self._clocked = container.format.name not in _CLOCKLESS
        self._is_jpeg = self._video.codec_context.name == "mjpeg"
        self._reformatter = VideoReformatter()
        self._wh = (0, 0)  # of the pictures now
        self._mirrored, self._turn = False, 0
        told = self._video.sample_aspect_ratio
        self._aspect = told or Fraction(1)
        self._may_reshape = told == self._video.codec_context.sample_aspect_ratio  # else the container's own holds
        self._packets = container.demux(self._video)
        self._ready: deque[Any] = deque()
        self._in_a_row = 0
        self._told_s = None if live else _told_s(container, self._video)  # where the end should be, and is so far
        self._came_s = 0.0
        self._end_byte = 0  # of the packets so far
        self._behind = behind or (lambda at: bytes(max(0, min(container.size - at, BEHIND))))

    def read(self) -> Shot | None:
        """The next picture, None at the end.

        Raises:
            av.FFmpegError: the line broke, or nothing but damage comes. LostError: a recording ends before its time.
        """
        while not self._left.is_set():
            while self._ready:
                shot = self._shot(self._ready.popleft())
                if shot is not None:
                    return shot
            try:
                if self._fill():
                    continue
            except (av.FFmpegError, ValueError) as error:
                self._check_whole(error)
                raise
            self._check_whole()
            break
        return None

    def _fill(self) -> bool:
        """Decode one packet; False at the end."""
        packet, is_cut = None, False
        try:
            packet = next(self._packets, None)
            self.heard_s = time.monotonic()
            if packet is None:
                return False
            if not self._live:
                self._note_end(packet)
            is_cut = self._is_jpeg and _is_cut(packet)
            self.damaged += is_cut
            self._ready.extend(packet.decode())
            self._in_a_row = 0
        except IndexError:  # how PyAV ends where damage has made up one more track on the way
            return False
        except _DAMAGE:
            self.damaged += not is_cut
            self._in_a_row = self._in_a_row + 1 if packet is None or self._live else 0
            if self._in_a_row > _PATIENCE:
                raise
            if packet is None:
                self._packets = self._container.demux(self._video)  # an error ends the generator, not what it reads
        return True

    def _note_end(self, packet: Any) -> None:
        if packet.pos is not None:
            self._end_byte = packet.pos + packet.size
        start = packet.pts if packet.pts is not None else packet.dts
        if self._told_s is not None and start is not None:
            self._came_s = max(self._came_s, float((start + (packet.duration or 0)) * self._video.time_base))

    def _check_whole(self, error: Exception | None = None) -> None:
        if self._live or self._left.is_set():
            return
        if self._told_s is not None:
            if self._told_s - self._came_s > max(_LACK_S, _LACK_FRAMES / (self.fps or 25.0)):
                text = f"it breaks off after {self._came_s:.1f} of {self._told_s:.1f} s"
                raise LostError(Loss(CUT_SHORT, text if self._end_byte else _NOT_ONE)) from error
        elif error is not None and not isinstance(error, _DAMAGE):
            raise LostError(Loss(CUT_SHORT, f"it breaks off: {loss_of(error).text}")) from error
        elif self._container.format.name == "yuv4mpegpipe" and self._end_byte and not self._in_a_row:
            rest = self._behind(self._end_byte)
            if len(rest) == BEHIND or (rest and _Y4M_FRAME.startswith(rest[: len(_Y4M_FRAME)])):
                raise LostError(Loss(CUT_SHORT, "it breaks off inside a frame"))  # FFmpeg leaves it out without a word

    def _shot(self, decoded: Any) -> Shot | None:
        if decoded.width * decoded.height > MAX_PIXELS:
            self.damaged += 1
            return None
        pts_s = float(decoded.time) if self._clocked and decoded.time is not None else None
        converted = self._reformatter.reformat(decoded, format="bgr24", **_ONE_THREAD).to_ndarray()
        if (decoded.width, decoded.height) != self._wh:
            self._wh = (decoded.width, decoded.height)
            if not self._is_jpeg:  # by its EXIF orientation, which OpenCV and browsers let be
                self._mirrored, self._turn = _turn_of(decoded)
        image = cv2.flip(converted, 1) if self._mirrored else converted
        image = cv2.rotate(image, _TURNS[self._turn - 1]) if self._turn else image
        codec = self._video.codec_context  # ahead of the frames by as many as it reorders: maybe of the next size
        if self._may_reshape and (codec.width, codec.height) == self._wh:
            self._aspect = codec.sample_aspect_ratio or Fraction(1)
        corrupt, aspect = bool(decoded.is_corrupt), 1 / self._aspect if self._turn % 2 else self._aspect
        return Shot(np.asarray(image, dtype=np.uint8), pts_s, self.heard_s, corrupt, aspect)


def _told_s(container: Any, video: Any) -> float | None:
    """How long a recording says that its pictures last, seconds; None where it does not, or where FFmpeg guesses."""
    if container.format.name == "avi":  # its frames are all of one length; FFmpeg's duration is of what is there
        return float(video.frames * video.time_base) or None
    if video.frames and video.duration:  # an index of all frames, as MP4 has
        return float(video.duration * video.time_base)
    if container.format.name.startswith("matroska"):
        with suppress(ValueError):  # none, or not filled in
            hours, minutes, seconds = video.metadata.get("DURATION", "").split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return None


def _is_cut(packet: Any) -> bool:
    """Whether the last scan of a JPEG lacks its end, which FFmpeg makes up without a word."""
    content = bytes(packet)
    end = content.rfind(_JPEG_END)
    return bool(content) and (end < 0 or content.find(_JPEG_SCAN, end) >= 0)


def _turn_of(decoded: Any) -> tuple[bool, int]:
    """Whether the file asks a player to mirror its pictures, left to right, and by how many quarters to turn them
    clockwise after that (FFmpeg's display matrix).

    Not to be asked of each frame: PyAV's side data and their frame refer to each other, so that the memory of frames
    would only come back when Python looks for such rings.
    """
    try:
        matrices = [bytes(data) for data in decoded.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # there is something beside it that PyAV does not know: all is refused
        return False, round(-getattr(decoded, "rotation", 0) / 90) % 4
    if not matrices:
        return False, 0
    a, b, _, c, d = np.frombuffer(matrices[0], dtype=np.int32)[:5].tolist()  # x is shown at ax + cy, y at bx + dy
    mirrored = a * d < b * c
    sign = -1 if mirrored else 1
    return mirrored, round(math.degrees(math.atan2(sign * b, sign * a)) / 90) % 4
