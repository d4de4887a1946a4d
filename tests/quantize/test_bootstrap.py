"""The benchmark's AP of weighted scenes against pycocotools itself, and intervals that tell models apart or do not."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.bootstrap import Matches, differences

SCENES, CLASSES = 24, 3


def truth_of(scenes: list[int]) -> COCO:
    """Boxes of the drawn `scenes`, which may repeat, as pictures 1, 2, ..."""
    annotations = []
    for picture, scene in enumerate(scenes, start=1):
        for box, kind in objects(scene):
            one = {"id": len(annotations) + 1, "image_id": picture, "category_id": kind, "iscrowd": 0}
            annotations.append({**one, "bbox": box, "area": box[2] * box[3]})
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1} for i in range(len(scenes))],
        "categories": [{"id": i} for i in range(CLASSES)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def objects(scene: int) -> list[tuple[list[float], int]]:
    rng = np.random.default_rng(scene)
    return [([*rng.uniform(0, 300, 2), *rng.uniform(20, 90, 2)], int(rng.integers(CLASSES))) for _ in range(6)]


def found_in(scenes: list[int], noise: float, seed: int = 0) -> list[dict[str, Any]]:
    found = []
    for picture, scene in enumerate(scenes, start=1):
        rng = np.random.default_rng((scene, seed))
        for box, kind in objects(scene)[:5]:
            moved = [float(v) for v in np.array(box) + rng.normal(0, noise, 4)]
            found.append({"image_id": picture, "category_id": kind, "bbox": moved, "score": float(rng.random())})
            found.append({**found[-1], "bbox": [400, 400, 9, 9], "score": float(rng.random())})
    return found


def test_ap_is_that_of_pycocotools_however_often_a_scene_occurs() -> None:
    scenes = list(range(SCENES))
    matches = Matches(truth_of(scenes), found_in(scenes, 2), "bbox", [i + 1 for i in scenes])
    drawn = np.sort(np.random.default_rng(1).integers(0, SCENES, SCENES)).tolist()
    for chosen in (scenes, drawn):
        truth = truth_of(chosen)
        with contextlib.redirect_stdout(io.StringIO()):
            scored = COCOeval(truth, truth.loadRes(found_in(chosen, 2)), "bbox")
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
        assert 10 < 100 * scored.stats[0] < 95
        assert matches.ap(np.bincount(chosen, minlength=SCENES)) == pytest.approx(100 * scored.stats[0], abs=0.02)


def test_intervals() -> None:
    scenes = list(range(SCENES))
    truth, ids = truth_of(scenes), [i + 1 for i in scenes]
    models = {"base": (4, 0), "alike": (4, 1), "worse": (9, 0)}
    matches = {name: Matches(truth, found_in(scenes, *how), "bbox", ids) for name, how in models.items()}
    found = differences(matches, "base", rounds=200)
    assert (found["base"].low, found["base"].points, found["base"].high) == (0, 0, 0)
    assert not found["alike"].is_one
    assert "no difference" in found["alike"].sentence()
    assert found["worse"].is_one
    assert found["worse"].low < found["worse"].points < found["worse"].high < 0
