"""The bundled model and the demo, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

import trt_blendmask
from trt_blendmask import bundled, demo
from trt_blendmask.console import Console
from trt_blendmask.errors import OutputError
from trt_blendmask.paste import paste_full
from trt_blendmask.runtime.recording.video import VideoFile
from trt_blendmask.synthetic import CLASS_NAMES, Conveyor, Scene, render_scene

UNSEEN_SEED = 31337


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        first = trt_blendmask.bundled_model()
        made = first.stat().st_mtime_ns
        assert trt_blendmask.bundled_model() == first
        assert first.stat().st_mtime_ns == made, "made again although it was there"
        assert [p.name for p in first.parent.iterdir()] == [first.name]
    return first


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="Cannot write"):
        trt_blendmask.bundled_model()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
        trt_blendmask.bundled_model()


def test_what_is_shipped_is_small_and_names_its_classes(model_path: Path) -> None:
    assert bundled.CHECKPOINT.stat().st_size <= 8_000_000
    assert bundled.VIDEO.stat().st_size <= 3_000_000
    with trt_blendmask.load(model_path) as model:
        assert model.spec.class_names == CLASS_NAMES
        assert (model.spec.mask_size, model.spec.num_bases, model.spec.attention_size) == (56, 4, 7)


def matched_iou(scene: Scene, detections: trt_blendmask.Detections) -> tuple[list[float], int]:
    """Mask IoU of every true instance with its best detection of the same class, and the detections without a match."""
    masks, height_width = paste_full(detections), scene.image.shape[:2]
    best, used = [], set()
    for instance in scene.instances:
        truth = instance.full_mask(height_width)
        ious = {
            i: (masks[i] & truth).sum() / (masks[i] | truth).sum()
            for i in range(len(detections))
            if i not in used and detections.classes[i] == instance.class_id
        }
        i = max(ious, key=lambda key: ious[key], default=None)
        best.append(float(ious[i]) if i is not None else 0.0)
        used |= {i} if best[-1] >= 0.5 else set()
    return best, len(detections) - len(used)


def test_it_finds_the_parts_of_scenes_it_never_saw(model_path: Path) -> None:
    ious: list[float] = []
    false = 0
    with trt_blendmask.load(model_path) as model:
        for index in range(8):
            scene = render_scene(UNSEEN_SEED, index)
            found, wrong = matched_iou(scene, model(scene.image).above(0.5))
            ious += found
            false += wrong
    hits = [iou for iou in ious if iou >= 0.5]
    assert len(hits) / len(ious) >= 0.75
    assert len(hits) / (len(hits) + false) >= 0.75
    assert float(np.mean(hits)) >= 0.8


def test_demo_runs_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    belt, file = Conveyor(5, (512, 288)), VideoFile(clip, 25, (512, 288))
    for n in range(4):
        file.write(belt.frame(n).image, n / 25)
    file.close()
    monkeypatch.setattr(demo, "VIDEO", clip)
    video = demo.demo(tmp_path / "out", Console())
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    lines = [json.loads(line) for line in (tmp_path / "out" / "conveyor_masks.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["detections"][0].keys() >= {"bbox", "score", "segmentation", "category_name"}
    told = capsys.readouterr().out
    for stage in ("checkpoint", "export", "surgery", "run"):
        assert any(line.startswith(stage) for line in told.splitlines())
    for name in ("raw.onnx", "model.onnx", "conveyor_masks.mp4", "conveyor_masks.jsonl"):
        assert (tmp_path / "out" / name).is_file()
        assert name in told
    assert told.count("  trt-blendmask ") == 3


def test_the_next_commands_run_the_program_that_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "project" / ".venv" / "bin" / "trt-blendmask"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PATH", "/nowhere")
    for called in (".venv/bin/trt-blendmask", str(program)):
        monkeypatch.setattr("sys.argv", [called, "demo"])
        assert demo._command() == ".venv/bin/trt-blendmask"
    monkeypatch.setenv("PATH", str(program.parent))  # activated: found by its name
    assert demo._command() == "trt-blendmask"
    monkeypatch.setattr("sys.argv", ["/x/trt_blendmask/__main__.py", "demo"])
    assert demo._command() == "trt-blendmask"
