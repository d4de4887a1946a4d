"""Every form of a checkpoint gives the same numbers; every broken one gives a sentence."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError
from trt_blendmask.export.reader import read_checkpoint
from trt_blendmask.export.storage import DamagedError

Dump = Callable[[Any], bytes]
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "checkpoints"  # made by make_checkpoints.py


def stored(header: dict[str, Any], data: bytes = b"") -> bytes:
    """A safetensors file."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def model(reference: Path) -> Path:
    return reference / "end_to_end" / "rt_r50" / "model_plain.pth"


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_both_forms_of_pytorch(form: str) -> None:
    got = read_checkpoint(GOLDEN / f"{form}.pth")
    base = np.arange(12, dtype=np.float32)
    expected = {"first": base[2:8], "second": base.reshape(3, 4).T, "half": base, "counter": np.float32(7)}
    assert set(got.weights) == set(expected)
    for key, values in expected.items():
        np.testing.assert_array_equal(got.weights[key].read(), values)
    assert got.other_keys == ("optimizer",)


def test_safetensors_without_the_library(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "x.bin"  # told by its bytes, not by its suffix
    header = {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    path.write_bytes(stored(header, values.tobytes()))
    np.testing.assert_array_equal(read_checkpoint(path).weights["w"].read(), values)


def test_safetensors_as_the_library_writes_it(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    values = {"a": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16), "b": np.arange(5, dtype=np.int64)}
    save_file(values, tmp_path / "x.safetensors")
    got = read_checkpoint(tmp_path / "x.safetensors").weights
    for key, value in values.items():
        np.testing.assert_array_equal(got[key].read(), value.astype(np.float32))


def test_names_of_wrappers_and_of_older_versions(tmp_path: Path) -> None:
    """AdelaiDet's tools/rename_blendmask.py replaces the word wherever it is, and nothing else."""
    names = {
        "module.proposal_generator.fcos_head.centerness.weight": "proposal_generator.fcos_head.ctrness.weight",
        "model.module.top_layer.weight": "top_layer.weight",
        "a.centerness.centerness_x": "a.ctrness.ctrness_x",
        "backbone.module.weight": "backbone.module.weight",
        "modules.weight": "modules.weight",
    }
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(stored(header, np.arange(len(names), dtype=np.float32).tobytes()))
    weights = read_checkpoint(path).weights
    assert [(name, float(weight.read()[0])) for name, weight in weights.items()] == [
        (name, i) for i, name in enumerate(names.values())
    ]


@pytest.mark.parametrize("pair", [("x.centerness", "x.ctrness"), ("module.x", "x"), ("model.x", "module.x")])
def test_two_tensors_of_one_name_are_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(pair)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(stored(header, bytes(8)))
    with pytest.raises(DataError, match="one tensor per name"):
        read_checkpoint(path)


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


BAD_SAFETENSORS: dict[str, bytes] = {
    "unknown type": stored(entry(dtype="F8_E4M3"), bytes(24)),
    "type that is no text": stored(entry(dtype=[1]), bytes(24)),
    "sizes that do not fit": stored(entry(shape=[2, 4]), bytes(24)),
    "beyond the end": stored(entry(), bytes(23)),
    "end before begin": stored(entry(data_offsets=[24, 0]), bytes(24)),
    "negative size": stored(entry(shape=[-2, -3]), bytes(24)),
    "fractional size": stored(entry(shape=[2.0, 3]), bytes(24)),
    "true as a size": stored(entry(shape=[True, 6]), bytes(24)),
    "huge size": stored(entry(shape=[2**60, 2**60], data_offsets=[0, 2**47]), bytes(24)),
    "no shape": stored({"w": {"dtype": "F32"}}, bytes(24)),
    "an entry that is a list": stored({"w": [1]}, bytes(24)),
    "no tensor": stored({"__metadata__": {}}),
    "name that occurs twice": struct.pack("<Q", 19) + b'{"w": {}, "w": {}} ' + bytes(24),
    "not JSON": struct.pack("<Q", 24) + b"{" + b"x" * 23,
    "deep nesting": struct.pack("<Q", 100_001) + b"{" + b"[" * 100_000,
    "header longer than the file": struct.pack("<Q", 90_000_000) + b'{"w":',
}


@pytest.mark.parametrize("content", BAD_SAFETENSORS.values(), ids=BAD_SAFETENSORS.keys())
def test_bad_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_checkpoint(path)


WRONG_FILES: dict[str, tuple[bytes, str]] = {
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), "JPEG"),
    "text": (b"just some text\n", "text file"),
    "html": (b"\n<!DOCTYPE html><html>404", "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "gzip"),
    "mp4": (b"\0\0\0\x20ftypisom" + bytes(50), "MP4"),
    "engine": (b"ftrt" + bytes(50), "TensorRT engine"),
    "zeros": (bytes(1000), "zero bytes"),
    "noise": (b"\xfe\xdc\x01\x92" * 20, "unknown kind"),
    "one byte": (b"P", "text file"),
}


@pytest.mark.parametrize("case", WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_other_files_are_named(case: tuple[bytes, str], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(case[0])
    with pytest.raises(DataError, match=case[1]):
        read_checkpoint(path)


def test_an_onnx_model_is_named(reference: Path) -> None:
    with pytest.raises(DataError, match="ONNX model"):
        read_checkpoint(next((reference / "onnx").glob("*.onnx")))


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(DataError, match="0 bytes"):
        read_checkpoint(tmp_path / "empty.pth")
    with pytest.raises(InputMissingError, match="no such file"):
        read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(InputMissingError, match="folder"):
        read_checkpoint(tmp_path)


def test_a_zip_of_other_things(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="zip archive of other things"):
        read_checkpoint(tmp_path / "x.npz")


def test_a_checkpoint_without_tensors(dump: Dump, zip_checkpoint: Callable[..., Path]) -> None:
    for tree in ({"epoch": 3}, [1, 2], {}, {"model": {"a": 1}}, "text"):
        with pytest.raises(DataError):
            read_checkpoint(zip_checkpoint(dump(tree)))


def test_a_flipped_byte_in_the_data_is_found(model: Path, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    weight = read_checkpoint(model).weights["top_layer.weight"]
    place = data.find(weight.read().tobytes())
    assert place > 0
    data[place + 100] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(DamagedError, match="damaged"):
        read_checkpoint(tmp_path / "x.pth").weights["top_layer.weight"].read()


def cuts(size: int) -> list[int]:
    chance = random.Random(1)
    return sorted({*range(1, 20), *range(size - 30, size), *(chance.randrange(1, size) for _ in range(40))})


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_every_cut_is_refused(form: str, model: Path, tmp_path: Path) -> None:
    """Property: whatever is missing at the end, it is a DataError or NotTrustedError, and never half the weights."""
    whole = tmp_path / "whole"
    if form == "zip":
        whole = model
    elif form == "legacy":
        whole = GOLDEN / "legacy.pth"
    else:
        whole.write_bytes(stored(entry(), bytes(24)))
    data, path = whole.read_bytes(), tmp_path / "cut.pth"
    read_checkpoint(whole)
    for end in cuts(len(data)) if len(data) > 2000 else range(1, len(data)):
        path.write_bytes(data[:end])
        with pytest.raises((DataError, NotTrustedError)):
            read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:invalid escape")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_never_raise_anything_else(form: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    if form == "safetensors":
        whole.write_bytes(stored(entry(), bytes(24)))
    else:
        whole = GOLDEN / f"{form}.pth"
    data, path, chance = whole.read_bytes(), tmp_path / "x.pth", random.Random(3)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError, NotTrustedError, DamagedError):
            for weight in read_checkpoint(path).weights.values():
                weight.read()
