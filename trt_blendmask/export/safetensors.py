"""The safetensors format: eight bytes of length, a JSON header, then raw little-endian tensors."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.export.storage import ITEM_BYTES, DamagedError, Weight, to_float32, view_fits

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is one: a plausible header length, then an opening brace."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def read(file: Path) -> dict[str, Weight]:
    """Names, shapes and places of all tensors.

    Raises:
        DamagedError: cut short, or a header that contradicts itself or the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if header_bytes > size - 8:
            raise DamagedError("its header is longer than the file: it was cut short")
        text = stream.read(header_bytes)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DamagedError("its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise DamagedError("its header is not a table of tensors")
    start = 8 + header_bytes
    return {name: _weight(file, name, entry, start, size) for name, entry in header.items() if name != "__metadata__"}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _weight(file: Path, name: str, entry: Any, start: int, size: int) -> Weight:
    entry = entry if isinstance(entry, dict) else {}
    stored = entry.get("dtype") if isinstance(entry.get("dtype"), str) else "?"
    dtype = DTYPES.get(stored, "")
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not dtype:
        raise DamagedError(f"its tensor '{name[:80]}' has the unsupported type {stored[:20]!r}")
    if not _naturals(shape) or not _naturals(place) or len(place) != 2:
        raise DamagedError(f"its tensor '{name[:80]}' has a damaged shape or place")
    begin, end = place
    count = math.prod(shape)
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if end - begin != count * ITEM_BYTES[dtype] or not view_fits(tuple(shape), stride, 0, count):
        raise DamagedError(f"its tensor '{name[:80]}' has another size than its shape says")
    if start + end > size:
        raise DamagedError("its data ends too early: it was cut short")
    return Weight(
        tuple(shape),
        dtype,
        partial(_read, file, start + begin, end - begin, dtype, tuple(shape), stride),
    )


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 64 and all(type(n) is int and 0 <= n < 2**48 for n in value)


def _read(
    file: Path, place: int, length: int, dtype: str, shape: tuple[int, ...], stride: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    with file.open("rb") as stream:
        stream.seek(place)
        data = stream.read(length)
    if len(data) != length:
        raise DamagedError("the file became shorter while it was read")
    return to_float32(data, dtype, 0, shape, stride)
