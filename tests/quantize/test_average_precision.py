"""Mask AP against pycocotools' on drawn detections, and what the mirrored truth is good for."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trt_blendmask.paste import paste_full
from trt_blendmask.quantize.average_precision import mask_ap, mirrored, truth_of
from trt_blendmask.structures import Detections

WH = (120, 80)
NOTHING = Detections(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros((0, 14, 14), np.float32), WH
)


def drawn(random: np.random.Generator, count: int, classes: int = 3) -> Detections:
    """Objects anywhere, over the border too."""
    corner = random.uniform(-10, 100, (count, 2))
    xyxy = np.concatenate([corner, corner + random.uniform(3, 45, (count, 2))], axis=1).astype(np.float32)
    scores = np.sort(random.integers(2, 40, count) / 40)[::-1].astype(np.float32)  # equal ones among them
    masks = (random.uniform(0.2, 1, (count, 14, 14)) > 0.35).astype(np.float32)
    return Detections(xyxy, scores, random.integers(0, classes, count).astype(np.int32), masks, WH)


def seen(one: Detections) -> Detections:
    """Without those that have no pixel in the frame, which COCO's format cannot hold."""
    return one.keep(np.array([mask.any() for mask in paste_full(one)], np.bool_))


def moved(truth: Detections, random: np.random.Generator, by: float) -> Detections:
    """The same objects moved and scored anew, one in five lost, some that are none."""
    keep = random.random(len(truth)) > 0.2
    other = truth.keep(keep)
    extra = drawn(random, 3)
    xyxy = np.concatenate([other.xyxy + random.normal(0, by, other.xyxy.shape).astype(np.float32), extra.xyxy])
    scores = random.integers(2, 40, len(xyxy)).astype(np.float32) / 40
    order = np.argsort(-scores, kind="stable")
    classes, masks = np.concatenate([other.classes, extra.classes]), np.concatenate([other.masks, extra.masks])
    return Detections(xyxy[order], scores[order], classes[order], masks[order], WH)


def by_pycocotools(truth: list[Detections], found: list[Detections]) -> float:
    annotations = [
        {**row, "image_id": i, "iscrowd": 0, "area": 1} for i, one in enumerate(truth) for row in one.to_coco()
    ]
    for number, row in enumerate(annotations, start=1):
        row["id"] = number
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i, "width": WH[0], "height": WH[1]} for i in range(len(truth))],
        "categories": [{"id": i + 1, "name": str(i)} for i in range(3)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        rows = [{"image_id": i, **row} for i, one in enumerate(found) for row in one.to_coco()]
        scored = COCOeval(coco, coco.loadRes(rows), "segm")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return 100 * float(scored.stats[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("by", [0.3, 2.0])
def test_equals_pycocotools(seed: int, by: float) -> None:
    random = np.random.default_rng(seed)
    truth = [seen(drawn(random, count)) for count in (9, 0, 14, 5, 2)]
    found = [seen(moved(one, random, by)) for one in truth]
    value = mask_ap(truth, found)
    assert 5 < value < 95
    assert value == pytest.approx(by_pycocotools(truth, found), abs=1e-6)
    assert value != pytest.approx(mask_ap(found, truth), abs=0.1)
    lower = [replace(one, scores=np.ascontiguousarray(one.scores[::-1])) for one in found]  # the order counts
    assert value != pytest.approx(mask_ap(truth, lower), abs=0.05)


def test_ends_of_the_scale() -> None:
    some = seen(drawn(np.random.default_rng(0), 8))
    assert mask_ap([some], [some]) == pytest.approx(100)
    assert mask_ap([some], [NOTHING]) == 0
    assert mask_ap([NOTHING], [some]) == mask_ap([NOTHING], [NOTHING]) == 100
    assert mask_ap([some], [replace(some, classes=some.classes + 3)]) == 0


def test_truth_comes_back_where_it_was() -> None:
    one = drawn(np.random.default_rng(1), 8)
    twice = truth_of(truth_of(one))
    kept = one.above(0.3)
    np.testing.assert_allclose(twice.xyxy, kept.xyxy, atol=1e-4)
    np.testing.assert_array_equal(twice.masks, kept.masks)
    here, there = paste_full(kept), paste_full(truth_of(one))
    assert (here[:, :, ::-1] != there).mean() < 2e-3  # pixel centres on an edge may round either way
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(mirrored(image), image[:, ::-1])
