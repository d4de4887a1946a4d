"""Engines, passports, tables, checkpoints: what is told, and that a plan is never given to a library."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.inspect.artefacts import PLAN, hand_made_engine
from trt_blendmask.engines.passport import passport_path, waiting_path
from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.inspect import inspect
from trt_blendmask.structures import CalibrationTable
from trt_blendmask.surgery.part_rows import sum_of


@pytest.fixture
def own(files: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The engine, its passport and its ONNX, to change."""
    mine = {name: tmp_path / files[name].name for name in ("model", "engine", "passport")}
    shutil.copy(files["model"], mine["model"])
    hand_made_engine(mine["engine"], onnx=mine["model"])
    return mine


def test_an_engine_is_told_from_its_passport(own: dict[str, Path]) -> None:
    found = inspect(own["engine"])
    assert found.details is not None
    assert found.details["passport"] == "matches"
    assert found.details["info"]["tensorrt_version"] == "1.7.1.116"
    assert "TensorRT-RTX 1.7.1.116" in found.summary
    assert [t.name for t in found.inputs] == ["images"]
    assert found.spec is not None
    assert sum_of(found.parts).total == sum_of(inspect(own["model"]).parts).total > 0
    assert found.notes == ()
    facts = dict(found.facts)
    assert facts["built"] == "2026-01-31T12:00:00+00:00 in 12.5 s"
    assert facts["built on"] == "a machine without a GPU"
    assert "unchanged" in facts["built from"]


@pytest.mark.parametrize("how", ["missing", "damaged", "other plan"])
def test_an_engine_without_its_passport_is_told_by_its_first_bytes(how: str, own: dict[str, Path]) -> None:
    if how == "missing":
        own["passport"].unlink()
    elif how == "damaged":
        own["passport"].write_text(own["passport"].read_text().replace("1.7.1", "1.7.2"))
    else:
        own["engine"].write_bytes(PLAN + b"x")
    found = inspect(own["engine"])
    assert found.details is not None
    assert found.details["passport"] == how
    assert found.kind == "engine"
    assert found.summary.startswith("an engine of TensorRT-RTX,")
    assert (found.inputs, found.parts, found.spec, found.next) == ((), (), None, "")
    assert "not opened" in found.notes[0]
    assert f"--trust-engine {found.sha256}" in found.notes[0]


def test_no_library_sees_the_plan(own: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # importing them is an error
    assert inspect(own["engine"]).kind == "engine"


def test_a_waiting_passport_counts(own: dict[str, Path]) -> None:
    own["passport"].rename(waiting_path(own["engine"]))
    found = inspect(own["engine"])
    assert found.details is not None
    assert found.details["passport"] == "matches"


def test_the_onnx_of_an_engine_may_change_or_go(own: dict[str, Path]) -> None:
    own["model"].write_bytes(own["model"].read_bytes() + b" ")
    assert "has changed" in dict(inspect(own["engine"]).facts)["built from"]
    own["model"].unlink()
    found = inspect(own["engine"])
    assert "not there" in dict(found.facts)["built from"]
    assert found.parts == ()


def test_an_engine_that_others_may_write_is_noted(own: dict[str, Path]) -> None:
    own["engine"].chmod(0o666)
    assert any("everybody can" in note for note in inspect(own["engine"]).notes)


def test_a_damaged_plan_is_still_taken_for_one(own: dict[str, Path]) -> None:
    own["engine"].write_bytes(b"\xfe\xdc\x01" + PLAN)
    found = inspect(own["engine"])
    assert found.kind == "engine"
    assert any("first bytes" in note for note in found.notes)


def test_a_passport(own: dict[str, Path]) -> None:
    found = inspect(own["passport"])
    assert found.kind == "passport"
    assert found.details is not None
    assert found.details["passport"] == "matches"
    assert found.notes == ()
    own["engine"].write_bytes(PLAN + b"x")
    assert "another engine" in inspect(own["passport"]).notes[0]
    own["engine"].unlink()
    assert "not beside it" in inspect(own["passport"]).notes[0]
    own["passport"].write_text(own["passport"].read_text().replace("12.5", "12.6"))
    with pytest.raises(DataError, match="changed or damaged"):
        inspect(own["passport"])


def test_a_table(files: dict[str, Path]) -> None:
    table = CalibrationTable.from_json(files["table"].read_text())
    found = inspect(files["table"])
    assert found.details is not None
    assert found.details["ranges"] == table.ranges
    assert found.details["model_sha256"] == table.model_sha256
    assert f"{len(table.ranges)} activations from 3 pictures, by mse" in found.summary


def test_a_cache_of_tensorrt(files: dict[str, Path]) -> None:
    table = CalibrationTable.from_json(files["table"].read_text())
    found = inspect(files["cache"])
    assert found.details is not None
    assert found.details["ranges"] == pytest.approx(table.ranges, rel=1e-6)
    assert found.details["version"] == "100300"
    assert "TensorRT 11 reads none" in found.notes[0]


@pytest.mark.parametrize("line", ["x: 7fc00000", "x: 7f800000", "x: 12", "x", ": 3f800000"])
def test_a_damaged_cache(line: str, tmp_path: Path) -> None:
    path = tmp_path / "c.cache"
    path.write_text(f"TRT-100300-EntropyCalibration2\nimages: 3c010a14\n{line}\n")
    with pytest.raises(DataError, match="line 3"):
        inspect(path)


def test_a_checkpoint(files: dict[str, Path]) -> None:
    found = inspect(files["checkpoint"])
    assert found.kind == "checkpoint"
    assert found.details is not None
    assert found.details["is_blendmask"] is True
    assert sum(row.tensors for row in found.weights) == len(found.details["tensors"])
    values = sum(int(np.prod(tensor["shape"])) for tensor in found.details["tensors"].values())
    assert sum(row.values for row in found.weights) == values
    assert {"backbone", "fpn", "towers", "predictors", "basis", "top_layer"} <= {row.part for row in found.weights}
    assert "--config" in found.notes[0]


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    save_file({"layer1.0.conv1.weight": np.zeros((8, 3, 3, 3), np.float16)}, tmp_path / "resnet.safetensors")
    found = inspect(tmp_path / "resnet.safetensors")
    assert found.details is not None
    assert (found.details["is_blendmask"], found.details["form"], found.next) == (False, "safetensors", "")
    assert found.weights[0].dtypes == {"float16": 216}
    assert found.weights[0].stored_bytes == 432
    assert "bases" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "a PNG picture"),
        (b"hello", "another text"),
        (b"{" * 100_000, "another text"),
        (b'{"ranges": ' + b"[" * 100_000, "calibration table"),
        (b'{"plan_sha256": 1}', "passport"),
        (b'{"a": 1}', "another text"),
        (b"\xff\x00" * 100, "unknown kind"),
        (b"\x08\x07\x12\x04abcd", "holds no network"),
    ],
)
def test_other_files_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=words):
        inspect(tmp_path / "file")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        inspect(tmp_path / "none.onnx")
    with pytest.raises(InputMissingError, match="folder"):
        inspect(tmp_path)


def test_a_passport_keeps_to_its_engine_through_a_link(own: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "sub" / "link.engine"
    link.parent.mkdir()
    link.symlink_to(own["engine"])
    found = inspect(link)
    assert found.details is not None
    assert found.details["passport"] == "matches"
    assert found.details["passport_path"] == str(passport_path(own["engine"]))
