"""Outputs appear whole or not at all; inputs that cannot be used are refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trt_blendmask.errors import DataError, InputMissingError, OutputError
from trt_blendmask.files import atomic_output, existing_file


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
