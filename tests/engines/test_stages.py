"""`build CHECKPOINT --precision ...`: the earlier stages, each shown, each done once, and nothing damaged is used."""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest

from tests.engines import tiny
from tests.engines.test_mutated import blank, cut, drop, flip, insert
from trt_blendmask import bundled
from trt_blendmask.cli import main
from trt_blendmask.engines.stages import StageOptions, make_deployable
from trt_blendmask.errors import NotTrustedError, UsageError
from trt_blendmask.export import read_config
from trt_blendmask.quantize import fp16
from trt_blendmask.structures import METADATA_KEY, ModelSpec

SMALL = StageOptions(config=read_config(bundled.CONFIG), input_hw=(64, 96))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(34):
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (96, 64)))
    return str(folder)


def made(source: Path, options: StageOptions) -> tuple[Path, list[str]]:
    """The file, and the first word of every line that is not indented."""
    lines: list[str] = []
    file = make_deployable(source, options, lines.append)
    return file, [line.split(":")[0] for line in lines if line[:1] not in ("", " ") and "made before" not in line]


def spec_of(file: Path) -> ModelSpec:
    entries = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    return ModelSpec.from_json(entries[METADATA_KEY])


def test_from_a_checkpoint_to_int8(pictures: str) -> None:
    floats, stages = made(bundled.CHECKPOINT, SMALL)
    assert stages == ["export", "surgery"]
    assert (spec_of(floats).kind, spec_of(floats).input_hw, spec_of(floats).precision) == ("deployable", (64, 96), "")
    int8, stages = made(bundled.CHECKPOINT, StageOptions("int8", pictures, "", SMALL.config, (64, 96)))
    assert (stages, spec_of(int8).precision) == (["calibrate", "quantize"], "int8")
    assert made(bundled.CHECKPOINT, StageOptions("int8", pictures, "", SMALL.config, (64, 96))) == (int8, [])


def copy(model: Path, output: Path, *_: object, **__: object) -> SimpleNamespace:
    """In the place of a stage."""
    output.write_bytes(model.read_bytes())
    return SimpleNamespace(lines=list)


def test_what_changed_is_made_anew(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp16, "quantize_fp16", copy)
    (tmp_path / "0.png").write_bytes((Path(pictures) / "0.png").read_bytes())
    (tmp_path / "list.txt").write_text("0.png\n")
    for day, images in enumerate((tmp_path, tmp_path / "list.txt", tmp_path / "0.png")):
        options = StageOptions("fp16", str(images), "", SMALL.config, (64, 96))
        first = made(bundled.CHECKPOINT, options)[0]
        assert made(bundled.CHECKPOINT, options) == (first, [])
        os.utime(tmp_path / "0.png", ns=(0, day))
        again, stages = made(bundled.CHECKPOINT, options)
        assert (again != first, stages) == (True, ["quantize"])
    assert made(bundled.CHECKPOINT, StageOptions(config=SMALL.config, input_hw=(64, 64)))[1] == ["export", "surgery"]


def test_an_onnx_enters_where_it_belongs(tmp_path: Path) -> None:
    deployable, _ = made(bundled.CHECKPOINT, SMALL)
    raw = next(deployable.parent.glob("*.raw.onnx"))
    assert made(deployable, StageOptions()) == (deployable, [])
    assert made(raw, StageOptions())[1] == ["surgery"]
    half, stages = made(deployable, StageOptions("fp16"))
    assert stages == ["quantize"]
    assert made(half, StageOptions("fp16")) == (half, [])
    (tmp_path / "none.onnx").write_bytes(deployable.read_bytes()[:1000])
    assert main(["build", str(tmp_path / "none.onnx")]) == 65


def test_mutated_files_in_the_cache_go_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp16, "quantize_fp16", copy)
    rng, source = random.Random(4), tiny.write(tmp_path / "model.onnx")
    file, _ = made(source, StageOptions("fp16"))
    for _ in range(200):
        damaged = rng.choice([file, file.with_name(f"{file.name}.sha256")])
        whole, damage = damaged.read_bytes(), rng.choice([flip, cut, drop, insert, blank, None])
        damaged.unlink()
        if damage is not None:
            damaged.write_bytes(damage(rng, whole))
        if damage is None or damaged.read_bytes() != whole:
            assert made(source, StageOptions("fp16")) == (file, ["quantize"])
        assert file.read_bytes() == source.read_bytes()


def test_what_is_in_the_way_of_the_build_is_told_before_pictures_are_looked_at(tmp_path: Path) -> None:
    def refuse() -> None:
        raise UsageError("no TensorRT")

    source = tiny.write(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="no TensorRT"):
        make_deployable(source, StageOptions("int8", str(tmp_path)), print, before_long=refuse)
    assert make_deployable(source, StageOptions(), print, before_long=refuse) == source


@pytest.mark.parametrize("name", ["\u6f22" * 80, "a b\nc", os.fsdecode(b"\xff")], ids=ascii)
def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(fp16, "quantize_fp16", copy)
    source = tiny.write(tmp_path / "model.onnx").rename(tmp_path / f"{name}.onnx")
    file, _ = made(source, StageOptions("fp16"))
    assert file.read_bytes() == source.read_bytes()


def test_the_engine_overwrites_nothing_that_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fp16, "quantize_fp16", copy)
    source, listed = tiny.write(tmp_path / "model.onnx"), tmp_path / "list.engine"
    listed.write_text("0.png")
    before = source.read_bytes()
    for output in (source, listed):
        given = ["--precision", "fp16", "--images", str(listed)]
        assert main(["build", str(source), *given, "-o", str(output)]) == UsageError.exit_code
        assert "overwrite" in capsys.readouterr().err
    assert (source.read_bytes(), listed.read_text()) == (before, "0.png")


def test_a_cache_that_others_can_write_is_not_used(cache: Path) -> None:
    made(bundled.CHECKPOINT, SMALL)
    folder = cache / "trt_blendmask" / "stages"
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o777)
    try:
        with pytest.raises(NotTrustedError, match="chmod go-w"):
            made(bundled.CHECKPOINT, SMALL)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int8"], "add --images"),
        (["--images", "x"], "--images is for --precision"),
        (["--precision", "fp16", "--held-out", "x"], "--held-out is for --precision int8"),
        (["--input-size", "64x64"], "--input-size is for checkpoints"),
        (["--preset", "R_50_3x"], "says itself what it is"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    deployable, _ = made(bundled.CHECKPOINT, SMALL)
    assert main(["build", str(deployable), *arguments]) == UsageError.exit_code
    assert words in capsys.readouterr().err


def test_a_checkpoint_without_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundled.CHECKPOINT)]) == UsageError.exit_code
    assert "--config" in capsys.readouterr().err
