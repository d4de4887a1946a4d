"""Damage to the bytes of a file, aimed at its structure rather than at its bulk."""

from __future__ import annotations

import random
from dataclasses import dataclass

EDGES = (0, 1, 2, 3, 4, 7, 8, 0x0A, 0x10, 0x2E, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0xFE, 0xFF)
NUMBERS = (b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\xff" * 7 + b"\x7f")


@dataclass(frozen=True)
class Seed:
    """A valid file; `soft` are its stretches (start, end) that hold structure, not just weights or pixels."""

    data: bytes
    soft: tuple[tuple[int, int], ...] = ()

    def place(self, rng: random.Random) -> int:
        """An index into the file, nine times in ten in its structure."""
        if self.soft and rng.random() < 0.9:
            start, end = rng.choices(self.soft, [end - start for start, end in self.soft])[0]
            return rng.randrange(start, max(start + 1, min(end, len(self.data))))
        return rng.randrange(len(self.data))


def without(data: bytes, bulk: list[bytes]) -> Seed:
    """A seed whose bulk is each of the byte strings of `bulk`, in the order in which they occur."""
    soft, at = [], 0
    for piece in bulk:
        found = data.find(piece, at)
        if len(piece) >= 64 and found >= 0:
            soft.append((at, found))
            at = found + len(piece)
    return Seed(data, tuple((a, b) for a, b in [*soft, (at, len(data))] if b > a))


def mutate(seed: Seed, rng: random.Random) -> bytes:
    """One to four kinds of damage."""
    data = bytearray(seed.data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if data:
            at = min(seed.place(rng), len(data) - 1)
            rng.choice(_KINDS)(data, at, rng)
    return bytes(data)


def _flip(data: bytearray, at: int, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3, 12))):
        data[min(len(data) - 1, at + rng.randrange(16))] ^= 1 << rng.randrange(8)


def _edge(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] = rng.choice(EDGES)


def _number(data: bytearray, at: int, rng: random.Random) -> None:
    number = rng.choice(NUMBERS)
    data[at : at + len(number)] = number


def _run(data: bytearray, at: int, rng: random.Random) -> None:
    length = rng.choice((1, 4, 16, 100, 4096))
    end = min(len(data), at + length)
    data[at:end] = rng.randbytes(end - at) if rng.random() < 0.5 else bytes([rng.choice(EDGES)]) * (end - at)


def _truncate(data: bytearray, at: int, _: random.Random) -> None:
    del data[at:]


def _cut(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at : at + rng.choice((1, 2, 8, 100, 5000))]


def _repeat(data: bytearray, at: int, rng: random.Random) -> None:
    piece = data[at : at + rng.choice((1, 4, 40, 1000))]
    data[at:at] = piece * rng.choice((1, 2, 50))


def _swap(data: bytearray, at: int, rng: random.Random) -> None:
    length, other = rng.choice((4, 50, 2000)), rng.randrange(len(data))
    first, second = sorted((at, other))
    length = min(length, second - first, len(data) - second)
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )


def _append(data: bytearray, _: int, rng: random.Random) -> None:
    data += rng.randbytes(rng.choice((1, 30, 3000)))


_KINDS = (_flip, _flip, _flip, _edge, _edge, _number, _run, _truncate, _cut, _repeat, _swap, _append)
