"""The two file forms of `torch.save`: a zip of stored records, and (before PyTorch 1.6) a row of pickles."""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.export.storage import ITEM_BYTES, DamagedError, Weight, to_float32
from trt_blendmask.export.unpickle import TensorRef, load_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the number whose pickle the older form opens with
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    KeyError,
    IndexError,
    EOFError,
    RuntimeError,
)
MAX_PICKLE_BYTES = 1 << 28


@dataclass(frozen=True)
class _Records:
    """The raw data of the storages: their sizes in bytes and a way to read one."""

    sizes: dict[str, int]
    read: Callable[[str], bytes]


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so is a pickle (then it is judged as the older form)."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


def read_zip(file: Path) -> Any:
    """PyTorch >= 1.6: a zip of `<name>/data.pkl` and one stored record `<name>/data/<key>` per storage.

    Returns:
        What was saved, with each tensor as a `Weight`.

    Raises:
        DamagedError: cut short or not such a zip. NotTrustedError: see `load_pickle`.
    """
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except (*ZIP_ERRORS, struct.error, OSError) as error:
        raise DamagedError("the directory at the end of the zip is missing or damaged: it was cut short") from error
    sizes = {member.filename: member.file_size for member in members}
    pickles = [name for name in sizes if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise DamagedError("it is a zip archive of other things")
    _check_members(members, file.stat().st_size)
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in sizes:
        raise DamagedError("it is a TorchScript program, not a checkpoint")

    def record(name: str) -> bytes:
        try:
            return archive.read(root + name)
        except (*ZIP_ERRORS, struct.error, OSError) as error:
            raise DamagedError(f"its record '{name}' is missing or damaged") from error

    if f"{root}byteorder" in sizes and record("byteorder").strip() != b"little":
        raise DamagedError("it was saved on a big-endian machine")
    if sizes[pickles[0]] > MAX_PICKLE_BYTES:
        raise DamagedError("its pickle is larger than any checkpoint's")
    tree = load_pickle(io.BytesIO(record("data.pkl"))).value
    prefix = f"{root}data/"
    storages = {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}
    return _resolve(tree, _Records(storages, lambda key: record(f"data/{key}")))


def _check_members(members: list[zipfile.ZipInfo], file_bytes: int) -> None:
    """PyTorch stores without compression, so nothing can unpack to more than the file's own size."""
    if len({member.filename for member in members}) != len(members):
        raise DamagedError("its zip directory names a record twice")
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size or m.flag_bits & 1 for m in members):
        raise DamagedError("its zip has compressed or encrypted records, which torch.save never writes")
    if sum(member.file_size for member in members) > file_bytes:
        raise DamagedError("its zip directory promises more data than the file has")


def read_legacy(file: Path) -> Any:
    """PyTorch < 1.6: pickles of a magic number, a version, the machine, the objects, the storage keys; then raw data.

    Returns:
        What was saved, with each tensor as a `Weight`.

    Raises:
        DamagedError: cut short, or a pickle that torch.save did not write. NotTrustedError: see `load_pickle`.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if load_pickle(stream).value != LEGACY_MAGIC:
            raise DamagedError(
                "it is a plain pickle that torch.save did not write, as detectron2's backbones in .pkl are"
            )
        load_pickle(stream)
        load_pickle(stream)
        saved = load_pickle(stream)
        keys = load_pickle(stream).value
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise DamagedError("its list of storages is damaged")
        places: dict[str, tuple[int, int]] = {}
        for key in keys:
            dtype, count = saved.storages.get(key), stream.read(8)
            if dtype is None or len(count) != 8:
                raise DamagedError("its list of storages does not fit its data: it was cut short")
            length = int.from_bytes(count, "little") * ITEM_BYTES[dtype]
            places[key] = (stream.tell(), length)
            if stream.tell() + length > len(stream):
                raise DamagedError("its data ends too early: it was cut short")
            stream.seek(length, io.SEEK_CUR)

    def read(key: str) -> bytes:
        start, length = places[key]
        with file.open("rb") as again:
            again.seek(start)
            return again.read(length)

    return _resolve(saved.value, _Records({key: length for key, (_, length) in places.items()}, read))


def _resolve(tree: Any, records: _Records) -> Any:
    """Every tensor of the tree's first two levels (plain or `{'model': ...}`) as a `Weight`; other values stay."""
    if not isinstance(tree, dict):
        return tree
    return {
        key: {k: _weight(v, records) for k, v in value.items()} if isinstance(value, dict) else _weight(value, records)
        for key, value in tree.items()
    }


def _weight(value: Any, records: _Records) -> Any:
    if not isinstance(value, TensorRef):
        return value
    storage = value.storage
    needed = (storage.start + storage.count) * ITEM_BYTES[storage.dtype]
    if records.sizes.get(storage.key, -1) < needed:
        raise DamagedError("a tensor's data is missing or too short")
    return Weight(value.size, storage.dtype, partial(_read, value, records))


def _read(tensor: TensorRef, records: _Records) -> npt.NDArray[np.float32]:
    storage = tensor.storage
    data = records.read(storage.key)
    if len(data) < (storage.start + storage.count) * ITEM_BYTES[storage.dtype]:
        raise DamagedError("the file became shorter while it was read")
    return to_float32(data, storage.dtype, storage.start + tensor.offset, tensor.size, tensor.stride)
