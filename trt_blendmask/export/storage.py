"""From raw bytes and a checked description to float32 arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
FLOATS = ("float32", "float16", "bfloat16", "float64")
MAX_DIMENSIONS = 8


class DamagedError(Exception):
    """The file is cut short, damaged or inconsistent; the message continues "but ...", the reader names the file."""


@dataclass(frozen=True)
class Weight:
    """One tensor of a checkpoint, still in the file.

    Attributes:
        shape, dtype: as stored ("bfloat16" included).
        read: gives it as contiguous float32; raises DamagedError if the file changed or is damaged there.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], npt.NDArray[np.float32]]


def view_fits(shape: tuple[int, ...], stride: tuple[int, ...], offset: int, count: int) -> bool:
    """Whether a strided view lies inside `count` elements and repeats none wholesale (no memory bomb)."""
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS or min((offset, *shape, *stride)) < 0:
        return False
    total = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    return total == 0 or (total <= count and last < count)


def to_float32(
    data: bytes, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """The strided view (in elements) of little-endian `data`; the caller has checked it with `view_fits`."""
    stored = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    flat = np.frombuffer(data, stored, count=len(data) // stored.itemsize)[offset:]
    steps = tuple(step * stored.itemsize for step in stride)
    view = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
    if dtype == "bfloat16":  # the upper half of a float32
        return np.ascontiguousarray((view.astype(np.uint32) << 16).view(np.float32))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which the network's check names
        return np.ascontiguousarray(view, dtype=np.float32)
