"""A number and a time burnt into a picture as blocks, so that a test knows which frame it sees and how old it is."""

from __future__ import annotations

import time
import zlib

import numpy as np

COLUMNS, ROWS = 16, 6  # 96 bits: number, milliseconds, checksum


def now_ms() -> int:
    """The monotonic clock, which all processes of a machine share, in milliseconds modulo 2**32."""
    return int(time.monotonic() * 1000) & 0xFFFFFFFF


def draw(image: np.ndarray, number: int, sent_ms: int) -> None:
    """Write both into the top two thirds of `image`, uint8 [H, W, 3]."""
    content = number.to_bytes(4, "big") + sent_ms.to_bytes(4, "big")
    bits = np.unpackbits(np.frombuffer(content + zlib.crc32(content).to_bytes(4, "big"), np.uint8))
    block_h, block_w = _block_hw(image)
    blocks = np.kron(bits.reshape(ROWS, COLUMNS), np.ones((block_h, block_w), np.uint8)) * 220 + 16
    image[: blocks.shape[0], : blocks.shape[1]] = blocks[..., np.newaxis]


def read(image: np.ndarray) -> tuple[int, int] | None:
    """What `draw` wrote, None where the picture is damaged."""
    block_h, block_w = _block_hw(image)
    grey = image[: ROWS * block_h, : COLUMNS * block_w].mean(axis=2)
    inner_h, inner_w = slice(block_h // 4, -(block_h // 4)), slice(block_w // 4, -(block_w // 4))
    cells = grey.reshape(ROWS, block_h, COLUMNS, block_w)[:, inner_h, :, inner_w]
    content = np.packbits(cells.mean(axis=(1, 3)).ravel() > 126).tobytes()
    if zlib.crc32(content[:8]) != int.from_bytes(content[8:], "big"):
        return None
    return int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")


def age_s(image: np.ndarray) -> float | None:
    """Seconds since the picture was drawn, None where it is damaged."""
    found = read(image)
    return None if found is None else ((now_ms() - found[1]) & 0xFFFFFFFF) / 1000


def _block_hw(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0] * 2 // 3 // ROWS, image.shape[1] // COLUMNS
