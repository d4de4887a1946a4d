"""Several frames in one inference: the same results as one by one, whatever came before, and of the right source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.quick_model import quick_model
from trt_blendmask.compare import compare
from trt_blendmask.compare.stages import STAGES
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.model import Model, filled_slots, load
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.predict import predict
from trt_blendmask.structures import Detections
from trt_blendmask.synthetic import render_scene

Maker = Callable[..., Path]
HW = (96, 160)
WH = ((160, 96), (320, 180), (96, 130))


def model_of(batch: int) -> Path:
    return quick_model(HW, batch)


def scene(seed: int, wh: tuple[int, int] = WH[0]) -> np.ndarray:
    return cv2.resize(render_scene(seed, 0, (512, 288)).image, wh)


def same(got: Detections, wanted: Detections) -> None:
    assert len(got) == len(wanted)
    assert got.frame_wh == wanted.frame_wh
    np.testing.assert_array_equal(got.classes, wanted.classes)
    np.testing.assert_allclose(got.xyxy, wanted.xyxy, atol=2e-3)
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(got.masks, wanted.masks, atol=1e-4)


@pytest.fixture(scope="module")
def alone() -> dict[int, Detections]:
    """What a batch of 1 finds in `scene(seed, WH[seed % 3])`."""
    with load(model_of(1)) as model:
        found = {seed: model(scene(seed, WH[seed % 3])) for seed in range(9)}
    assert sum(len(one) for one in found.values()) > 20, "these scenes prove nothing"
    return found


@pytest.mark.parametrize("batch", [2, 3])
def test_equal_to_one_by_one(alone: dict[int, Detections], batch: int) -> None:
    with load(model_of(batch)) as model:
        assert model.batch == batch
        for count in (batch, 1, batch, batch - 1):
            for first in range(0, 9 - count, 4):
                boxes = []
                for slot in range(count):
                    seed = first + slot
                    images, box = model.letterbox(scene(seed, WH[seed % 3]), slot)
                    boxes.append(box)
                outputs = model.infer(images)
                for slot, box in enumerate(boxes):
                    same(model.collect(outputs, box, slot), alone[first + slot])
                for slot in range(count, batch):  # an earlier batch left something there
                    assert not len(filled_slots(outputs, slot))
        same(model(scene(4, WH[1])), alone[4])


def test_slots_are_emptied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with load(model_of(3)) as model:
        padded: list[int] = []
        for number, slot in enumerate(model._slots):
            pad = slot._pad_for
            monkeypatch.setattr(slot, "_pad_for", lambda wh, n=number, pad=pad: (padded.append(n), pad(wh)))
        for _ in range(5):
            model(scene(0))
        canvas = [slot._canvas.copy() for slot in model._slots[1:]]
        for one, slot in zip(canvas, model._slots[1:], strict=True):
            np.testing.assert_array_equal(one, np.broadcast_to(np.rint(slot._mean).astype(np.uint8), one.shape))


def folder(path: Path, seeds: range, wh: tuple[int, int]) -> Path:
    path.mkdir()
    for seed in seeds:
        cv2.imwrite(str(path / f"{seed:03d}.png"), scene(seed, wh))
    return path


def lines(path: Path) -> dict[str, Any]:
    """The lines by picture, and each picture once."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    by_name = {row["file_name"]: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def instances(row: dict[str, Any]) -> list[tuple[str, float]]:
    return [(one["category_name"], one["score"]) for one in row["detections"]]


@pytest.mark.parametrize("batch", [2, 3])
def test_a_run_with_sources_that_end_at_different_times(tmp_path: Path, batch: int) -> None:
    sources = [
        folder(tmp_path / "a", range(7), WH[0]),
        folder(tmp_path / "b", range(10, 12), WH[1]),
        folder(tmp_path / "c", range(20, 25), WH[2]),
    ]
    run(model_of(1), sources, json=tmp_path / "one.jsonl", score=0.3)
    report = run(model_of(batch), sources, tmp_path / "v.mkv", tmp_path / "many.jsonl", score=0.3)
    assert report.frames == 14
    wanted, got = lines(tmp_path / "one.jsonl"), lines(tmp_path / "many.jsonl")
    assert set(got) == set(wanted)
    assert sum(len(row["detections"]) for row in wanted.values()) > 14
    for name, row in wanted.items():
        assert got[name]["frame_wh"] == row["frame_wh"]
        assert got[name]["source"] == row["source"]
        assert [one[0] for one in instances(got[name])] == [one[0] for one in instances(row)]
        np.testing.assert_allclose([s for _, s in instances(got[name])], [s for _, s in instances(row)], atol=1e-4)
    for source in ("a", "b", "c"):
        own = [row["frame"] for row in got.values() if row["source"].endswith(f"/{source}")]
        assert own == sorted(own)


def test_a_file_fills_batches_and_the_last_is_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Maker
) -> None:
    sizes: list[int] = []
    infer = Model.infer

    def counting(self: Model, images: Any) -> Any:
        sizes.append(self._filled)
        return infer(self, images)

    monkeypatch.setattr(Model, "infer", counting)
    report = run(model_of(3), clip(frames=31), json=tmp_path / "a.jsonl")
    assert report.frames == sum(sizes) == 31
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(31))
    assert Counter(sizes)[3] > Counter(sizes)[1]


def test_no_more_than_asked_for(tmp_path: Path, clip: Maker) -> None:
    sources = [clip(name="a.mp4"), clip(name="b.mp4")]
    report = run(model_of(3), sources, json=tmp_path / "a.jsonl", max_frames=7)
    assert report.frames == 7


def test_a_region_that_is_outside_of_some_frames_of_a_batch(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", range(2), (160, 96))
    for number in (2, 4):
        cv2.imwrite(str(source / f"{number:03d}.png"), scene(number, (64, 48)))
    cv2.imwrite(str(source / "003.png"), scene(3, (160, 96)))
    events = Events()
    report = run(
        model_of(3), source, json=tmp_path / "a.jsonl", options=RunOptions(roi=(80, 40, 80, 56)), events=events
    )
    assert report.frames == 3
    assert list(lines(tmp_path / "a.jsonl")) == ["000.png", "001.png", "003.png"]
    assert 1 <= events.counters()["roi_outside"] <= 2


def test_other_verbs(tmp_path: Path) -> None:
    pictures = folder(tmp_path / "pictures", range(3), WH[0])
    report = compare(model_of(1), model_of(3), str(pictures), tmp_path / "page.html")
    assert report.agreement.f1 == 1.0
    assert {stage.stage for stage in report.stages} == set(STAGES)
    assert max(stage.relative for stage in report.stages) < 1e-4
    files = sorted(pictures.iterdir())
    for batch in (1, 2):
        predict(model_of(batch), files, tmp_path / str(batch))
    one, two = (json.loads((tmp_path / str(batch) / "results.json").read_text()) for batch in (1, 2))
    assert [(a["file_name"], a["category_id"]) for a in one] == [(a["file_name"], a["category_id"]) for a in two]
    np.testing.assert_allclose([a["bbox"] for a in one], [a["bbox"] for a in two], atol=2e-3)
