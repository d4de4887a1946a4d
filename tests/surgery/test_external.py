"""Weights in a second file: read where they are safe to read, refused in a sentence everywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from trt_blendmask.errors import DataError
from trt_blendmask.surgery import operate

Edit = Callable[[onnx.TensorProto, Path], None]


@pytest.fixture
def two_files(reference: Path, tmp_path: Path) -> Path:
    model = onnx.load(reference / "onnx" / "rt_r50_legacy.onnx")
    path = tmp_path / "in" / "raw.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="raw.onnx.data", size_threshold=256)
    return path


def test_the_same_as_in_one_file(reference: Path, two_files: Path, tmp_path: Path) -> None:
    operate(two_files, tmp_path / "two.onnx")
    operate(reference / "onnx" / "rt_r50_legacy.onnx", tmp_path / "one.onnx")
    assert (tmp_path / "two.onnx").read_bytes() == (tmp_path / "one.onnx").read_bytes()


def place(key: str, value: str) -> Edit:
    def edit(tensor: onnx.TensorProto, _: Path) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data} | {key: value}
        del tensor.external_data[:]
        for name, text in entries.items():
            tensor.external_data.add(key=name, value=text)

    return edit


def link(_: onnx.TensorProto, folder: Path) -> None:
    (folder / "raw.onnx.data").rename(folder.parent / "elsewhere")
    (folder / "raw.onnx.data").symlink_to(folder.parent / "elsewhere")


def cut_short(_: onnx.TensorProto, folder: Path) -> None:
    os.truncate(folder / "raw.onnx.data", 1000)


def gone(_: onnx.TensorProto, folder: Path) -> None:
    (folder / "raw.onnx.data").unlink()


def fifo(_: onnx.TensorProto, folder: Path) -> None:
    (folder / "raw.onnx.data").unlink()
    os.mkfifo(folder / "raw.onnx.data")


def larger(tensor: onnx.TensorProto, _: Path) -> None:
    tensor.dims[0] *= 2


def huge(tensor: onnx.TensorProto, _: Path) -> None:
    tensor.dims[0] = 1 << 40
    del tensor.external_data[1:]


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (place("location", "../../etc/passwd"), "only files beside"),
        (place("location", "/etc/passwd"), "only files beside"),
        (place("location", ".."), "only files beside"),
        (place("location", "sub/raw.onnx.data"), "only files beside"),
        (place("location", "nul\0"), "only files beside"),
        (place("location", ""), "only files beside"),
        (place("offset", "-4"), "do not fit"),
        (place("offset", "99999999"), "too short"),
        (place("length", "7"), "do not fit"),
        (link, "a link"),
        (fifo, "no file at all"),
        (cut_short, "too short"),
        (gone, "copy it beside"),
        (larger, "do not fit"),
        (huge, "2 GiB"),
    ],
)
def test_refused(two_files: Path, tmp_path: Path, edit: Edit, word: str) -> None:
    model = onnx.load(two_files, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
    edit(tensor, two_files.parent)
    two_files.write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=word):
        operate(two_files, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
