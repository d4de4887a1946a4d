"""Checkpoints of the three forms, written by hand, and such as nobody should have written."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.fuzz.mutate import Seed, without

State = Mapping[str, "np.ndarray[Any, Any]"]
LEGACY = (
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
    b"\x80\x02M\xe9\x03.",
    b"\x80\x02}.",
)  # torch.save's first three
STORAGE = 1 << 40


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str, count: int, shape: tuple[int, ...], stride: tuple[int, ...] | None = None, kind: str = "FloatStorage"
) -> bytes:
    """The pickle instructions of one tensor, as torch.save writes them."""
    steps = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))) if stride is None else stride
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count)
    view = number(0) + numbers(shape) + numbers(steps) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + view + b"tR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(state: State) -> bytes:
    entries = {name: tensor(str(i), v.size, v.shape) for i, (name, v) in enumerate(state.items())}
    return b"\x80\x02" + dictionary(entries) + b"."


def zipped(data_pkl: bytes, records: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for key, data in records.items():
            archive.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def as_zip(state: State) -> Seed:
    records = {str(i): v.tobytes() for i, v in enumerate(state.values())}
    return without(zipped(pickled(state), records), list(records.values()))


def as_legacy(state: State) -> Seed:
    records = [v.tobytes() for v in state.values()]
    keys = b"\x80\x02](" + b"".join(text(str(i)) for i in range(len(records))) + b"e."
    rows = [struct.pack("<q", len(data) // 4) + data for data in records]
    return without(b"".join([*LEGACY, pickled(state), keys, *rows]), records)


def as_safetensors(state: State) -> Seed:
    header, at = {}, 0
    for name, values in state.items():
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": (at, at + values.nbytes)}
        at += values.nbytes
    data = safetensors(header, b"".join(v.tobytes() for v in state.values()))
    return Seed(data, ((0, len(data) - at),))


def safetensors(header: object, body: bytes = b"") -> bytes:
    spelled = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(spelled)) + spelled + body


def hostile(state: State) -> dict[str, bytes]:
    """Name to bytes; all must be refused."""
    return {**_hostile_safetensors(), **_hostile_zips(state), **_hostile_legacy(state)}


def _hostile_safetensors() -> dict[str, bytes]:
    def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> Any:
        return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    return {
        "safetensors: header of 2**63": struct.pack("<Q", 2**63) + b'{"a": 1}',
        "safetensors: header of 99 MB": struct.pack("<Q", 99_000_000) + b"{}",
        "safetensors: nested deep": safetensors(deep),
        "safetensors: brackets": safetensors(b'{"a":' + b"[" * 1_000_000),
        "safetensors: huge number": safetensors(b'{"a": ' + b"9" * 400_000 + b"}"),
        "safetensors: huge exponent": safetensors(b'{"a": {"dtype":"F32","shape":[1e999],"data_offsets":[0,1]}}'),
        "safetensors: not a number": safetensors(b'{"a": {"dtype":"F32","shape":[NaN],"data_offsets":[0,1]}}'),
        "safetensors: same name twice": safetensors(b'{"a": 1, "a": 2}'),
        "safetensors: 2 GB": safetensors(entry([1 << 29], [0, 1 << 31])),
        "safetensors: 2**60": safetensors(entry([1 << 30, 1 << 30], [0, 1 << 62])),
        "safetensors: product wraps": safetensors(entry([1 << 32, 1 << 32], [0, 0])),
        "safetensors: many axes": safetensors(entry([1] * 5000, [0, 4]), bytes(4)),
        "safetensors: backwards": safetensors(entry([1], [8, 4]), bytes(8)),
        "safetensors: negative": safetensors(entry([-1], [0, -4]), bytes(8)),
        "safetensors: odd types": safetensors({"w": {"dtype": [], "shape": {}, "data_offsets": "x"}}),
        "safetensors: a list": safetensors([1, 2]),
        "safetensors: lone surrogate": safetensors(b'{"\\ud800\\n": {"dtype":"F32","shape":[],"data_offsets":[0,4]}}'),
        "safetensors: a million names": safetensors({str(i): 0 for i in range(300_000)}),
        "safetensors: overlapping": safetensors(
            {f"w{i}": {"dtype": "F32", "shape": [250_000], "data_offsets": [0, 1_000_000]} for i in range(3000)},
            bytes(1_000_000),
        ),
    }


def _hostile_zips(state: State) -> dict[str, bytes]:
    whole = zipped(pickled(state), {str(i): v.tobytes() for i, v in enumerate(state.values())})
    small = pickled({"w": np.zeros(4, np.float32)})
    count = 1 << 29
    lying = bytearray(zipped(b"\x80\x02" + dictionary({"w": tensor("0", count, (count,))}) + b".", {"0": bytes(16)}))
    for signature, at in ((b"PK\x01\x02", 20), (b"PK\x03\x04", 18)):  # sizes of the record that was written last
        place = lying.rfind(signature) + at
        lying[place : place + 8] = struct.pack("<II", 4 * count - 1, 4 * count - 1)
    quine = io.BytesIO()
    with zipfile.ZipFile(quine, "w") as archive:
        for name in ("archive/data.pkl", "archive/data/0", "../../outside.bin", "/etc/passwd", "archive/data/../0"):
            archive.writestr(name, small if name.endswith("pkl") else bytes(16))
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for i in range(40_000):
            archive.writestr(f"archive/data/{i}", b"")
    return {
        "zip: deflated": zipped(b"\x80\x02" + dictionary({"w": tensor("0", 1 << 24, (1 << 24,))}) + b".",
                                {"0": bytes(1 << 26)}, zipfile.ZIP_DEFLATED),
        "zip: deflated pickle": zipped(b"\x80\x02" + b"N0" * (1 << 24) + b"N.", {}, zipfile.ZIP_DEFLATED),
        "zip: bzip2": zipped(small, {"0": bytes(1 << 20)}, zipfile.ZIP_BZIP2),
        "zip: lzma": zipped(small, {"0": bytes(1 << 20)}, zipfile.ZIP_LZMA),
        "zip: overlapping records": _overlapping(),
        "zip: lying sizes": bytes(lying),
        "zip: 40,000 records": many.getvalue(),
        "zip: only its end": whole[whole.rfind(b"PK\x05\x06") :],
        "zip: directory beyond the file": whole[:-6] + struct.pack("<I", 2**32 - 2) + b"\0\0",
        "zip: comment of 64 KB": whole[:-2] + b"\xff\xff" + bytes(65535),
        "zip: traversing names": quine.getvalue().replace(b"archive/data.pkl", b"archive/../x.pkl"),
        "zip: one byte": b"PK\x03\x04",
        "zip: tensors share a storage 100,000 times": zipped(
            b"\x80\x02" + dictionary({"m": tensor("0", 4, (4,)) + b"q\x00"})[:-1]
            + b"".join(text(f"k{i}") + b"h\x00" for i in range(100_000)) + b"u.", {"0": bytes(16)}),
        "zip: every tensor the whole of one storage": zipped(
            b"\x80\x02" + dictionary({name: tensor("0", 1 << 22, (1 << 22,)) for name in state}) + b".",
            {"0": bytes(1 << 24)}),
        "zip: strides of 0": zipped(
            b"\x80\x02" + dictionary({name: tensor("0", 1, v.shape, (0,) * v.ndim) for name, v in state.items()})
            + b".", {"0": bytes(4)}),
        "zip: 2 GB by strides of 0": zipped(
            b"\x80\x02" + dictionary({name: tensor("0", 1, (1 << 29,), (0,)) for name in state}) + b".",
            {"0": bytes(4)}),
        "zip: impossible sizes": zipped(b"\x80\x02" + dictionary({"w": tensor("0", STORAGE, (STORAGE,))}) + b".",
                                        {"0": bytes(4)}),
        "zip: negative sizes": zipped(b"\x80\x02" + dictionary({"w": tensor("0", -1, (-1,))}) + b".", {"0": b""}),
    }  # fmt: skip


def _overlapping() -> bytes:
    """2,000 directory entries that all point to the same megabyte."""
    data = zipped(b"\x80\x02}.", {"0": bytes(1 << 20)})
    start = data.rfind(b"PK\x01\x02")
    end = data.rfind(b"PK\x05\x06")
    entry, first = data[start:end], data[data.find(b"PK\x01\x02") : start]
    rows = [entry[:-1] + b"0" for _ in range(2000)]
    rows = [row[:-14] + f"archive/d/{i:04}".encode() for i, row in enumerate(rows)]
    directory = first + b"".join(rows)
    begin = data.find(b"PK\x01\x02")
    return (
        data[:begin] + directory + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2001, 2001, len(directory), begin, 0)
    )


def _hostile_legacy(state: State) -> dict[str, bytes]:
    good = as_legacy(state).data
    one = b"\x80\x02" + dictionary({"w": tensor("0", 4, (4,))}) + b"."
    keys = b"\x80\x02](" + text("0") + b"e."
    start = b"".join(LEGACY)
    return {
        "legacy: storage of 2**63": start + one + keys + struct.pack("<q", 2**63 - 1) + bytes(16),
        "legacy: storage of -1": start + one + keys + struct.pack("<q", -1) + bytes(16),
        "legacy: 2 GB in 16 bytes": start + one + keys + struct.pack("<q", 1 << 29) + bytes(16),
        "legacy: too little": start + one + keys + struct.pack("<q", 2) + bytes(8),
        "legacy: no keys": start + one + b"\x80\x02].",
        "legacy: a key twice":
            start + one + b"\x80\x02](" + text("0") * 1000 + b"e." + struct.pack("<q", 4) + bytes(16),
        "legacy: unknown key": start + one + b"\x80\x02](" + text("9") + b"e." + struct.pack("<q", 4) + bytes(16),
        "legacy: cut in the magic": good[:9],
        "legacy: magic alone": LEGACY[0],
        "legacy: 100,000 pickles": LEGACY[0] * 100_000,
        "legacy: two types of one storage": start + b"\x80\x02"
        + dictionary({"a": tensor("0", 4, (4,)), "b": tensor("0", 4, (4,), kind="DoubleStorage")}) + b"." + keys,
    }  # fmt: skip
