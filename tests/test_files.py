"""Outputs appear whole or not at all; inputs that cannot be used are refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trt_blendmask.errors import DataError, InputMissingError, OutputError, UsageError
from trt_blendmask.files import atomic_output, check_outputs, check_writable, existing_file


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_output_appears_whole_with_the_mode_of_any_new_file(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary.bin"
    ordinary.write_bytes(b"x")
    with atomic_output(tmp_path / "sub" / "a.bin") as temporary:
        temporary.write_bytes(b"new")
        assert listing(tmp_path / "sub") == [temporary.name]
        assert temporary.suffix == ".bin"
    assert (tmp_path / "sub" / "a.bin").read_bytes() == b"new"
    assert listing(tmp_path / "sub") == ["a.bin"]
    assert (tmp_path / "sub" / "a.bin").stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("stop", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)])
def test_a_stop_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, stop: BaseException) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(type(stop)), atomic_output(target) as temporary:
        temporary.write_bytes(b"half")
        raise stop
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["a.bin"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"Cannot write .*file/a\.bin"), atomic_output(tmp_path / "file" / "a.bin"):
        pass
    with pytest.raises(OutputError, match="got the folder"), atomic_output(tmp_path):
        pass


def test_a_full_disk_is_told_and_cleaned_up(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), atomic_output(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert listing(tmp_path) == []


def test_inputs_that_cannot_be_used(tmp_path: Path) -> None:
    empty, whole = tmp_path / "empty.pth", tmp_path / "whole.pth"
    empty.touch()
    whole.write_bytes(b"x")
    assert existing_file(whole, "a checkpoint", "Type this.") == whole
    with pytest.raises(InputMissingError, match=r"no such file\. Type this\."):
        existing_file(tmp_path / "absent.pth", "a checkpoint", "Type this.")
    with pytest.raises(InputMissingError, match="is a folder"):
        existing_file(tmp_path, "a checkpoint", "Type this.")
    with pytest.raises(DataError, match="0 bytes"):
        existing_file(empty, "a checkpoint", "Type this.")
    if os.geteuid() != 0:  # root may read everything
        whole.chmod(0)
        with pytest.raises(InputMissingError, match="may not be read"):
            existing_file(whole, "a checkpoint", "Type this.")


def test_inputs_of_odd_kinds(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (
        ("pipe", "a pipe or a device"),
        ("loop", "symbolic links"),
        ("x" * 300, "too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(InputMissingError, match=words):
            existing_file(tmp_path / name, "a checkpoint", "Type this.")


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OutputError, match="pipe or device"), atomic_output(tmp_path / name):
            pass
    assert (tmp_path / "pipe").is_fifo()
    assert listing(tmp_path) == ["link", "pipe"]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "latest.onnx").symlink_to("elsewhere/today.onnx")
    with atomic_output(tmp_path / "latest.onnx") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "latest.onnx").is_symlink()
    assert (tmp_path / "elsewhere" / "today.onnx").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["x" * 250 + ".bin", "ü" * 125 + ".bin", os.fsdecode(b"not utf-8 \xff.bin")])
def test_any_name_that_the_system_takes(tmp_path: Path, name: str) -> None:
    with atomic_output(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert listing(tmp_path) == [name]


def test_outputs_that_would_overwrite(tmp_path: Path) -> None:
    model, out = tmp_path / "model.onnx", tmp_path / "out.json"
    model.touch()
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    check_outputs([out, tmp_path / "other"], [model])
    for outputs in ([model], [tmp_path / "." / "model.onnx"], [tmp_path / "link.onnx"], [out, out]):
        with pytest.raises(UsageError, match="would overwrite"):
            check_outputs(outputs, [model])


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + "/page.html", "new/" + "n" * 300, "file/page.html", "."])
def test_what_cannot_be_written_is_told_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write|got the folder"):
        check_writable(tmp_path / name)
    check_writable(tmp_path / "new" / "page.html")
    assert listing(tmp_path) == ["file"]
