"""Average precision and recall against pycocotools called by hand, to the last digit."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.quick_model import quick_model
from trt_blendmask import load
from trt_blendmask.evaluate import EvalReport, evaluate
from trt_blendmask.evaluate.scores import NAMES, score
from trt_blendmask.runtime.images import read_image


@pytest.fixture(scope="module")
def report(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalReport:
    output = tmp_path_factory.mktemp("eval")
    return evaluate([quick_model()], scenes / "annotations.json", scenes, output)


def by_hand(annotations: Path, rows: Any, iou_type: str, ids: list[int] | None = None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        judged = COCOeval(truth, truth.loadRes(rows), iou_type)
        if ids is not None:
            judged.params.imgIds = ids
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


@pytest.mark.parametrize(("kind", "iou_type"), [("box", "bbox"), ("mask", "segm")])
def test_equals_pycocotools_on_the_written_results(scenes: Path, report: EvalReport, kind: str, iou_type: str) -> None:
    written = next(file for file in report.files if file.name.endswith(f".{kind}.json"))
    judged = by_hand(scenes / "annotations.json", str(written), iou_type)
    facts = json.loads(report.files[1].read_text())
    assert list(facts["models"][0][kind]["overall"].values()) == judged.stats.tolist()
    assert 0.4 < judged.stats[0] < 1
    precision = judged.eval["precision"]
    for k, values in enumerate(facts["models"][0][kind]["per_class"].values()):
        of_class = precision[:, :, k, 0, -1]
        assert values["AP"] == (np.mean(of_class[of_class > -1]) if (of_class > -1).any() else -1)


def test_equals_pycocotools_on_what_the_model_finds(scenes: Path, report: EvalReport) -> None:
    """From the pictures on, without a line of ours but the model and `to_coco`."""
    document = json.loads((scenes / "annotations.json").read_text())
    rows = []
    with load(quick_model()) as model:
        for image in document["images"]:
            for row in model(read_image(scenes / image["file_name"])).to_coco():
                del row["bbox"]
                rows.append({**row, "image_id": image["id"]})
    judged = by_hand(scenes / "annotations.json", rows, "segm")
    assert list(report.models[0].mask.overall.values()) == judged.stats.tolist()


def test_only_the_chosen_pictures_count(scenes: Path, tmp_path: Path) -> None:
    some = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path, most=2)
    judged = by_hand(scenes / "annotations.json", str(tmp_path / f"{quick_model().stem}.mask.json"), "segm", [1, 2])
    assert list(some.models[0].mask.overall.values()) == judged.stats.tolist()
    assert (some.pictures, some.wanted) == (2, 2)


def test_nothing_found_is_zero(scenes: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(scenes / "annotations.json"))
    scores = score(truth, [], "mask", truth.getImgIds())
    assert scores.overall["AP"] == 0
    assert set(scores.overall) == set(NAMES)
    assert set(scores.precision["0.50"]) == {0.0}


def test_mask_sizes_are_told_by_the_mask() -> None:
    """A diagonal bar: its box is medium, its mask small; detectron2 drops the box for that."""
    wh = 100
    bar = np.eye(wh, dtype=np.uint8)[:50, :50]
    field = np.zeros((wh, wh), np.uint8, order="F")
    field[:50, :50] = bar
    rle = coco_mask.encode(field)
    rle["counts"] = rle["counts"].decode()
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 50, "iscrowd": 0}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": wh, "height": wh, "file_name": "a"}],
        "categories": [{"id": 1, "name": "bar"}],
        "annotations": [{**row, "segmentation": rle}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    stray = {"image_id": 1, "category_id": 1, "bbox": [0, 50, 50, 50], "score": 0.9}
    flipped = coco_mask.encode(np.asfortranarray(field[::-1]))
    rows = [
        {**stray, "segmentation": {**flipped, "counts": flipped["counts"].decode()}},  # wrong and surer
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.5, "segmentation": rle},
    ]
    scores = score(truth, rows, "mask", [1])
    assert scores.overall["AP_small"] == pytest.approx(0.5)  # by its box the stray one is medium and would not count
    assert scores.overall["AP_medium"] == -1
