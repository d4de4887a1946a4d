"""Short videos whose frames can be told apart, and what can go wrong with them."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from . import frame_code

BEHIND_YUV4MPEG = (b"", b"\n", bytes(64), bytes(5000), b"no picture", 500 * b"no picture\n")  # of which none is a frame


def coded(number: int, frame_wh: tuple[int, int]) -> np.ndarray:
    """Picture `number`, uint8 [H, W, 3]."""
    image = np.full((frame_wh[1], frame_wh[0], 3), 96, np.uint8)
    frame_code.draw(image, number, 0)
    image[-frame_wh[1] // 6 :, (number * 4) % frame_wh[0] :] = 160
    return image


def jpeg(number: int, orientation: int = 0, keep: float = 1.0, frame_wh: tuple[int, int] = (320, 240)) -> bytes:
    """Picture `number`, with an EXIF orientation where it is above 0, and as much of it as `keep`."""
    content = cv2.imencode(".jpg", coded(number, frame_wh))[1].tobytes()
    if orientation:
        exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, orientation, 0)
        content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    return content[: int(len(content) * keep)]


class TsEncoder:
    """Frames to MPEG-TS with H.264, a key frame a second; a change of size starts a new sequence in the same track."""

    def __init__(self, fps: float, begin_s: float = 0.0) -> None:
        self._fps, self._count = Fraction(fps).limit_denominator(1001), round(begin_s * fps)
        self._wh = (0, 0)

    def encode(self, image: np.ndarray) -> bytes:
        """The bytes that bring `image`, uint8 [H, W, 3] BGR, to the other side, complete."""
        if (image.shape[1], image.shape[0]) != self._wh:
            self._open(image.shape[1], image.shape[0])
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = self._count, 1 / self._fps
        self._count += 1
        for packet in self._video.encode(frame):
            self._container.mux(packet)
        content = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return content

    def close(self) -> None:
        if self._wh != (0, 0):
            self._video.encode()
            self._container.close()

    def _open(self, width: int, height: int) -> None:
        self.close()
        self._wh, self._file = (width, height), io.BytesIO()
        options = {"flush_packets": "1", "mpegts_flags": "resend_headers"}
        self._container = av.open(self._file, "w", format="mpegts", options=options)
        self._video = self._container.add_stream("libx264", rate=self._fps)
        self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
        self._video.codec_context.time_base = 1 / self._fps
        self._video.codec_context.gop_size = round(self._fps)
        self._video.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}


def transport_stream(
    frames: int, frame_wh: tuple[int, int] = (320, 240), first: int = 0, begin_s: float = 0.0
) -> bytes:
    """MPEG-TS of H.264 at 25 frames per second, numbered from `first`, `begin_s` on its clock."""
    encoder = TsEncoder(25, begin_s)
    content = b"".join(encoder.encode(coded(first + i, frame_wh)) for i in range(frames))
    encoder.close()
    return content


def recording(
    path: Path,
    frames: int,
    codec: str = "libx264",
    reordered: int = 0,
    sound_s: float = 0.0,
    frame_wh: tuple[int, int] = (320, 240),
    pixel_aspect: Fraction | None = None,
    **muxer: str,
) -> list[tuple[bool, int, int]]:
    """A video file of 25 frames per second, a key frame a second. Of each packet, whether it is a key frame's, where in
    the file it begins, and its bytes."""
    with av.open(str(path), "w", options=muxer) as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *frame_wh, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if pixel_aspect:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        video.options = {"preset": "ultrafast", "bf": str(reordered), "g": "25"} if codec == "libx264" else {}
        if sound_s:
            sound = container.add_stream("aac", rate=8000, layout="mono")
            silence = np.zeros((1, round(sound_s * 8000)), np.float32)
            note = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            note.sample_rate, note.pts = 8000, 0
            container.mux(sound.encode(note))
            container.mux(sound.encode())
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(coded(number, frame_wh), format="bgr24")
            container.mux(video.encode(image))
        container.mux(video.encode())
    with av.open(str(path)) as container:
        return [(p.is_keyframe, p.pos, p.size) for p in container.demux(video=0) if p.size]


def with_flipped_bits(content: bytes, flips: int, seed: int) -> bytes:
    """`content` with `flips` single bits turned, anywhere."""
    rng, damaged = np.random.default_rng(seed), bytearray(content)
    for at, bit in zip(rng.integers(0, len(content), flips), rng.integers(0, 8, flips), strict=True):
        damaged[at] ^= 1 << int(bit)
    return bytes(damaged)


def at_times(path: Path, times_s: Sequence[float]) -> Path:
    """A video whose frame i is shown at `times_s[i]`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        video.options = {"preset": "ultrafast", "bf": "0"}
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(coded(number, (320, 240)), format="bgr24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path
