"""Pictures: good ones of every format as seeds, and such that unfold to more than they should."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np

from tests.fuzz.mutate import Seed

FORMATS = (".png", ".jpg", ".bmp", ".webp", ".tif", ".ppm")


def seeds() -> dict[str, Seed]:
    """Suffix to a good picture of 48 x 40 (a small one, so that its structure is most of it)."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (48, 40))
    found = {suffix: Seed(cv2.imencode(suffix, image)[1].tobytes()) for suffix in FORMATS}
    found[".prog.jpg"] = Seed(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    found[".16.png"] = Seed(cv2.imencode(".png", image.astype(np.uint16) * 257)[1].tobytes())
    return {suffix: Seed(seed.data, ((0, min(400, len(seed.data))),)) for suffix, seed in found.items()}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, depth: int = 8, colour: int = 2, interlace: int = 0, extra: Any = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def tiff(
    width: int, height: int, compression: int = 1, bits: int = 8, samples: int = 3, strip: bytes = bytes(64)
) -> bytes:
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1 if samples == 1 else 2),
        (273, 4, 8), (277, 3, samples), (278, 4, height), (279, 4, len(strip)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + entries + bytes(4)


def zeros(count: int) -> bytes:
    """That many zero bytes, deflated without ever holding them."""
    deflate, piece = zlib.compressobj(1), bytes(1 << 20)
    parts = [deflate.compress(piece[: min(len(piece), count - at)]) for at in range(0, count, len(piece))]
    return b"".join([*parts, deflate.flush()])


def _jpeg(width: int, height: int, good: bytes) -> bytes:
    at = max(good.find(b"\xff\xc0"), good.find(b"\xff\xc2"))
    return good[: at + 5] + struct.pack(">HH", height, width) + good[at + 9 :]


def _others() -> dict[str, tuple[str, bytes]]:
    """Formats that OpenCV knows and nobody asked for."""
    return {
        "hdr": (".png", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n" + bytes(100)),
        "pfm": (".png", b"PF\n30000 30000\n-1.0\n" + bytes(100)),
        "sun raster": (".png", struct.pack(">8I", 0x59A66A95, 30_000, 30_000, 24, 0, 1, 0, 0) + bytes(100)),
        "gif": (".png", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6)
                + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\0;"),
        "jpeg 2000": (".png", b"\xff\x4f\xff\x51\0\x2f\0\0"
                      + struct.pack(">8I", 30_000, 30_000, 0, 0, 30_000, 30_000, 0, 0)
                      + struct.pack(">H", 3) + b"\x07\x01\x01" * 3 + bytes(50)),
        "avif": (".png", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200)),
        "exr": (".png", b"v/1\x01\x02\0\0\0dataWindow\0box2i\0\x10\0\0\0" + struct.pack("<4i", 0, 0, 30_000, 30_000)),
    }  # fmt: skip


def hostile(good: dict[str, Seed]) -> dict[str, tuple[str, bytes]]:
    """Name to suffix and bytes."""
    black, bomb = zeros(10_000 * 30_001), zeros(1 << 28)
    jpeg, scans = good[".jpg"].data, good[".prog.jpg"].data
    first = scans.find(b"\xff\xda")
    webp, bmp = good[".webp"].data, good[".bmp"].data
    found = {
        **_others(),
        "png of 2**31": png(2**31 - 1, 2**31 - 1, b""),
        "png of 100 million pixels": png(10_000, 10_000, black),
        "png of 16 bits, interlaced":
            png(9_000, 9_000, zlib.compress(bytes(9_000 * 100)), depth=16, colour=6, interlace=1),
        "png of one row": png(99_999_999, 1, zlib.compress(bytes(100))),
        "png of one column": png(1, 99_999_999, zlib.compress(bytes(100))),
        "png of no width": png(0, 5, b""),
        "png with a text bomb": png(4, 4, zlib.compress(bytes(52)), extra=_chunk(b"zTXt", b"a\0\0" + bomb)),
        "png with a profile bomb": png(4, 4, zlib.compress(bytes(52)), extra=_chunk(b"iCCP", b"a\0\0" + bomb)),
        "png whose pixels are a bomb": png(4, 4, bomb),
        "png with 50,000 chunks": png(4, 4, zlib.compress(bytes(52)), extra=_chunk(b"tEXt", b"a\0b") * 50_000),
        "png, header twice": png(4, 4, zlib.compress(bytes(52)),
                                 extra=_chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))),
        "animated png": png(4, 4, zlib.compress(bytes(52)), extra=_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
                            + _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0))),
        "jpeg of 65535": (".jpg", _jpeg(65_535, 65_535, jpeg)),
        "jpeg of 9999": (".jpg", _jpeg(9_999, 9_999, jpeg)),
        "jpeg of no height": (".jpg", _jpeg(100, 0, jpeg)),
        "jpeg of 2,000 scans": (".jpg", _jpeg(8_000, 8_000, scans[:first] + scans[first:-2] * 2000)),
        "jpeg, size twice": (".jpg", jpeg[:2] + b"\xff\xc0\0\x11\x08\0\x10\0\x10\x03\x01\x22\0\x02\x11\x01\x03\x11\x01"
                             + _jpeg(65_000, 65_000, jpeg)[2:]),
        "jpeg, padded marker": (".jpg", _jpeg(65_000, 65_000, jpeg).replace(b"\xff\xc0", b"\xff\xff\xff\xc0", 1)),
        "jpeg, bytes before the marker":
            (".jpg", _jpeg(30_000, 30_000, jpeg).replace(b"\xff\xc0", b"\0\1\xff\xff\xc0", 1)),
        "bmp of 2**31": (".bmp", bmp[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + bmp[26:]),
        "bmp of 30,000": (".bmp", bmp[:18] + struct.pack("<ii", 30_000, 30_000) + bmp[26:]),
        "bmp of an old header":
            (".bmp", b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 65_000, 65_000, 1, 24) + bytes(9)),
        "webp of 16383": (".webp", webp[:26] + struct.pack("<HH", 16_383, 16_383) + webp[30:]),
        "tiff of 30,000": (".tif", tiff(30_000, 30_000)),
        "tiff of 2**31": (".tif", tiff(2**31 - 1, 2**31 - 1)),
        "tiff of one strip": (".tif", tiff(20_000, 40_000, compression=5)),
        "tiff, deflated": (".tif", tiff(25_000, 25_000, compression=8)),
        "tiff, packed": (".tif", tiff(25_000, 25_000, compression=32_773)),
        "tiff of 144 million pixels": (".tif", tiff(12_000, 12_000, 8, samples=1, strip=zeros(12_000 * 12_000))),
        "tiff of 64 bits": (".tif", tiff(15_000, 15_000, bits=64)),
        "tiff of many samples": (".tif", tiff(5_000, 5_000, samples=65_535)),
        "tiff in a circle":
            (".tif", b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 256, 4, 1, 9) + struct.pack("<I", 8)),
        "ppm of 30,000": (".ppm", b"P6 30000 30000 255\n" + bytes(100)),
        "ppm with a comment": (".ppm", b"P6#a\n#b\n30000#c 1 1\n 30000 255\n" + bytes(100)),
        "ppm of words": (".ppm", b"P3 32000 32000 65535\n" + b"1 " * 100),
        "pgm of 2**31": (".pgm", b"P5 2147483647 2147483647 255\n"),
        "pbm": (".pgm", b"P4 32767 32767\n" + bytes(100)),
        "pam": (".ppm", b"P7\nWIDTH 30000\nHEIGHT 30000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"),
        "nothing": (".png", b""),
        "zeros": (".png", bytes(1000)),
    }  # fmt: skip
    return {f"picture: {k}": (".png", v) if isinstance(v, bytes) else v for k, v in found.items()}
