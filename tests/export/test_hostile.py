"""Checkpoints that want to execute something, exhaust the machine, or are simply broken: a sentence, never a crash."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import os
import pickle
import random
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trt_blendmask.errors import DataError, NotTrustedError, TrtBlendMaskError
from trt_blendmask.export.reader import read_checkpoint
from trt_blendmask.export.storage import DamagedError
from trt_blendmask.export.unpickle import load_pickle

ZipCheckpoint = Callable[..., Path]
G, R, T1, STOP = b"c", b"R", b"\x85", b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


class Reduces:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


MARKER = "hostile_marker"
STACK_GLOBAL_SYSTEM = b"\x80\x04" + text("os") + text("system") + b"\x93" + text(f"touch {MARKER}") + T1 + R + STOP
# Each must be refused by the name given, with nothing run.
NAMED: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(Reduces(os.system, f"touch {MARKER}"), 2), "system"),
    "builtins.eval": (pickle.dumps(Reduces(builtins.eval, f"open('{MARKER}', 'w')"), 2), "eval"),
    "protocol 0": (pickle.dumps(Reduces(builtins.exec, f"open('{MARKER}', 'w')"), 0), "exec"),
    "protocol 5": (pickle.dumps(Reduces(subprocess.Popen, ["touch", MARKER]), 5), "subprocess.Popen"),
    "nested in weights": (pickle.dumps({"model": {"a": [Reduces(os.system, f"touch {MARKER}")]}}, 2), "system"),
    "as an argument of an allowed builder": (
        G + b"collections\nOrderedDict\n(" + G + b"os\nsystem\n" + text("id") + T1 + R + b"t" + R + STOP,
        "os.system",
    ),
    "STACK_GLOBAL": (STACK_GLOBAL_SYSTEM, "os.system"),
    "STACK_GLOBAL of a dotted name": (
        b"\x80\x04" + text("collections") + text("OrderedDict.__class__") + b"\x93.", "OrderedDict.__class__",
    ),
    "memoised name": (b"\x80\x04" + text("os") + b"q\x00" + text("popen") + b"\x93.", "os.popen"),
    "INST": (b"(" + text("id") + b"ios\nsystem\n.", "os.system"),
    "OBJ": (b"(cos\nsystem\n" + text("id") + b"o.", "os.system"),
    "NEWOBJ": (b"\x80\x02cbuiltins\nobject\n)\x81.", "builtins.object"),
    "NEWOBJ_EX": (b"\x80\x04cbuiltins\nobject\n)}\x92.", "builtins.object"),
    "getattr chain": (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
    "python 2 spelling": (b"c__builtin__\neval\n.", "__builtin__.eval"),
    "torch's own loader": (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
    "torch's compiler": (b"ctorch.jit\nload\n.", "torch.jit.load"),
    "copyreg": (b"ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
    "numpy's loader": (b"cnumpy\nload\n.", "numpy.load"),
}  # fmt: skip
# Each is nonsense: refused as data, or as not trusted.
NONSENSE: dict[str, bytes] = {
    "call of a dictionary": b"}" + text("x") + T1 + R + STOP,
    "call of a storage type": G + b"torch\nFloatStorage\n" + text("x") + T1 + R + STOP,
    "state set on a name": G + b"collections\nOrderedDict\n}b.",
    "state set on text": text("a") + b"}b.",
    "extension registry": b"\x80\x02\x82\x01.",
    "textual persistent id": b"Pstorage\n.",
    "persistent id of another kind": text("module") + b"(" + b"t" + b"Q.",
    "next buffer": b"\x80\x05\x97.",
    "mutable bytes": b"\x80\x05\x96" + struct.pack("<Q", 4) + b"abcd.",
    "memo that was never filled": b"h\x07.",
    "unknown instruction": b"\xff.",
    "stack underflow": b"0.",
    "tuple key": b"}" + text("a") + T1 + b"K\x01s.",
    "no end": b"}",
    "append to a dictionary": b"}K\x01a.",
    "huge length": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "integer of too many digits": b"I" + b"9" * 6000 + b"\n.",
    "huge integer as a key": b"}\x8b" + struct.pack("<I", 1000) + b"\x7f" * 1000 + b"K\x01s.",
    "odd pairs": b"}(" + text("a") + b"u.",
    "empty": b"",
}


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Works in an empty folder, forbids what the corpus tries, and sees that no marker file appeared."""
    monkeypatch.chdir(tmp_path)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the checkpoint got something executed")

    for module, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (importlib, "import_module")):
        monkeypatch.setattr(module, name, forbidden)
    yield
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("case", NAMED, ids=NAMED.keys())
@pytest.mark.parametrize("form", ["zip", "plain"])
def test_hostile_pickles_are_refused_by_name(
    case: str, form: str, zip_checkpoint: ZipCheckpoint, tmp_path: Path
) -> None:
    pickled, name = NAMED[case]
    path = zip_checkpoint(pickled)
    if form == "plain":
        path = tmp_path / "plain.pth"
        path.write_bytes((b"" if pickled[:1] == b"\x80" else b"\x80\x02") + pickled)
    with pytest.raises(NotTrustedError, match=name) as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == 77
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("pickled", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_one_sentence(pickled: bytes, zip_checkpoint: ZipCheckpoint) -> None:
    with pytest.raises((DataError, NotTrustedError)):
        read_checkpoint(zip_checkpoint(pickled))


def laughs(instruction: bytes) -> bytes:
    """Each line holds the one before it ten times: 10 ** 50 leaves, if anyone walked them."""
    out = b"\x80\x02" + text("ha") + b"q\x00"
    for index in range(1, 50):
        out += b"(" + bytes([ord("h"), index - 1]) * 10 + instruction + b"q" + bytes([index])
    return out


BOMBS: dict[str, bytes] = {
    "nested tuples": laughs(b"t") + STOP,
    "nested lists": laughs(b"l") + STOP,
    "nested tuples as a key": laughs(b"t")[:-2] + b"q\x31}h\x31K\x01s" + STOP,
    "nested tuples as a name": laughs(b"t") + text("x") + b"\x93" + STOP,
    "the same list copied": (
        b"\x80\x02](" + (text("k") + b"K\x01\x86") * 20_000 + b"eq\x00"
        + (G + b"collections\nOrderedDict\nh\x00" + T1 + R + b"0") * 20_000 + b"N" + STOP
    ),
    "deep nesting": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + STOP,
}  # fmt: skip


@pytest.mark.parametrize("pickled", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_end_soon(pickled: bytes, zip_checkpoint: ZipCheckpoint) -> None:
    path = zip_checkpoint(pickled)
    start = time.monotonic()
    with pytest.raises(TrtBlendMaskError):
        read_checkpoint(path)
    assert time.monotonic() - start < 20


def test_every_truncated_pickle_is_refused(dump: Callable[[Any], bytes], tensor: Callable[..., Any]) -> None:
    pickled = dump({"model": {"w": tensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1))}})
    assert load_pickle(io.BytesIO(pickled)).storages == {"0": "float32"}
    for end in range(len(pickled)):
        with pytest.raises((DamagedError, NotTrustedError)):
            load_pickle(io.BytesIO(pickled[:end]))


@pytest.mark.filterwarnings("ignore:invalid escape")
def test_damaged_pickles_never_raise_anything_else(reference: Path) -> None:
    with zipfile.ZipFile(reference / "end_to_end" / "rt_r50" / "model_plain.pth") as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        pickled = archive.read(name)[:4000]
    chance = random.Random(5)
    for _ in range(1500):
        damaged = bytearray(pickled)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(DamagedError, NotTrustedError):
            load_pickle(io.BytesIO(bytes(damaged)))


IMPOSSIBLE: dict[str, tuple[Any, Any, tuple[Any, ...], tuple[Any, ...]]] = {
    "beyond the storage": (6, 1, (2, 3), (3, 1)),
    "negative offset": (6, -1, (2, 3), (3, 1)),
    "negative size": (6, 0, (-2, 3), (3, 1)),
    "negative stride": (6, 5, (6,), (-1,)),
    "one value repeated a billion times": (6, 0, (10**9,), (0,)),
    "sizes without strides": (6, 0, (2, 3), (1,)),
    "size that is text": (6, 0, ("2", 3), (3, 1)),
    "too many dimensions": (6, 0, (1,) * 60, (1,) * 60),
    "count that is text": ("6", 0, (2, 3), (3, 1)),
    "more than the record has": (600, 0, (2, 3), (3, 1)),
    "huge": (2**60, 0, (2**60,), (1,)),
}


@pytest.mark.parametrize("case", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_tensors_are_refused(
    case: tuple[Any, ...], dump: Callable[[Any], bytes], tensor: Callable[..., Any], zip_checkpoint: ZipCheckpoint
) -> None:
    path = zip_checkpoint(dump({"w": tensor("FloatStorage", "0", *case)}), {"0": bytes(24)})
    with pytest.raises(DataError):
        read_checkpoint(path)


def test_missing_and_short_records_are_refused(
    dump: Callable[[Any], bytes], tensor: Callable[..., Any], zip_checkpoint: ZipCheckpoint
) -> None:
    pickled = dump({"w": tensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1))})
    for records in ({}, {"0": bytes(23)}, {"1": bytes(24)}):
        with pytest.raises(DataError, match="missing or too short"):
            read_checkpoint(zip_checkpoint(pickled, records))


def test_compressed_records_are_refused(
    dump: Callable[[Any], bytes], tensor: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        count = 50_000_000
        archive.writestr("a/data.pkl", dump({"w": tensor("ByteStorage", "0", count, 0, (count,), (1,))}))
        archive.writestr("a/data/0", bytes(count))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="compressed"):
        read_checkpoint(path)
