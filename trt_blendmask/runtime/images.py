"""Reading picture files, with a limit on what a small file may unfold to."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from trt_blendmask.errors import DataError
from trt_blendmask.files import existing_file
from trt_blendmask.structures import U8

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 100_000_000  # 300 MB as BGR; far above any camera, far below what stops a small machine


def read_image(path: Path) -> U8:
    """The picture as uint8 [H, W, 3] BGR, turned upright by its EXIF orientation.

    Raises:
        InputMissingError: no such file.
        DataError: not a picture, truncated beyond decoding, or of more than `MAX_PIXELS` pixels.
    """
    file = existing_file(path, "a picture", "Give a PNG or JPEG file.")
    content = file.read_bytes()
    width, height = declared_wh(content)
    if width < 1 or height < 1:
        raise DataError(f"Expected a picture, but '{file}' is of a kind that is not read. Give a PNG or JPEG file.")
    scans = content.count(b"\xff\xda") if content[:2] == b"\xff\xd8" else 1  # a progressive JPEG repeats them
    if width * height > MAX_PIXELS or width * height * scans > 25 * MAX_PIXELS:
        raise DataError(
            f"Expected a picture of at most {MAX_PIXELS // 1_000_000} million pixels, but '{file}' has "
            f"{width} x {height}{f' in {scans} scans' if scans > 25 else ''}. Scale it down first."
        )
    image = None
    if _chunks_fit(content):
        with suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"Expected a picture, but '{file}' cannot be decoded. Give a PNG or JPEG file.")
    return np.asarray(image, dtype=np.uint8)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which frame2.png comes before frame10.png."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts]


def declared_wh(content: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG, JPEG, BMP, WebP, TIFF, PGM or PPM; (0, 0) for other formats.

    Decoders allocate the whole picture first, so a bomb must be seen before decoding.
    """
    try:
        if content[:8] == PNG_START:
            return struct.unpack_from(">II", content, 16)
        if content[:2] == b"BM":
            old = content[14:18] == b"\x0c\0\0\0"
            width, height = struct.unpack_from("<HH" if old else "<ii", content, 18)
            return abs(width), abs(height)
        if content[:2] == b"\xff\xd8":
            return _jpeg_wh(content)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp_wh(content)
        if content[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_wh(content)
        if netpbm := re.match(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s", content[:4096]):
            return int(netpbm[1]), int(netpbm[2])
    except (struct.error, IndexError):
        pass
    return 0, 0


def _chunks_fit(content: bytes) -> bool:
    """Whether no chunk of a PNG claims more bytes than the file has: OpenCV sets them aside before it reads."""
    at = 8 if content[:8] == PNG_START else len(content)
    while at + 8 <= len(content):
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return at <= len(content)


def _jpeg_wh(content: bytes) -> tuple[int, int]:
    """As libjpeg looks for it: bytes before a marker are passed over, and a marker may begin with several 0xFF."""
    at = 2
    while (at := content.find(b"\xff", at)) >= 0:
        marker, at = content[at + 1], at + 1
        if marker in (0x00, 0x01, 0xD8, 0xFF) or 0xD0 <= marker <= 0xD7:  # no segment follows
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack_from(">HH", content, at + 4)
            return width, height
        at += 1 + int(struct.unpack_from(">H", content, at + 1)[0])
    return 0, 0


def _tiff_wh(content: bytes) -> tuple[int, int]:
    """Tags 256 and 257 of the first directory; a value of two bytes stands first in its field of four."""
    order = "<" if content[:1] == b"I" else ">"
    start = struct.unpack_from(f"{order}I", content, 4)[0]
    sides = {256: 0, 257: 0}
    for entry in range(struct.unpack_from(f"{order}H", content, start)[0]):
        at = start + 2 + 12 * entry
        tag, kind = struct.unpack_from(f"{order}HH", content, at)
        if tag in sides:
            sides[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", content, at + 8)[0]
    return sides[256], sides[257]


def _webp_wh(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF
