"""Both forms of suppression against a float32 oracle on 10,000 random images, and deliberate mistakes that it notices.

The images come as batches: one run of a graph that is only suppression does thousands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from tests.surgery.graphs import SPEC, run_graph, variable
from trt_blendmask.surgery.nms import append_nms
from trt_blendmask.surgery.selection import Candidates

CLASSES = 3
FORMS = ("matrix", "op")
Scene = tuple[Any, Any, Any]  # boxes float32 [N, n, 4], scores float32 [N, n], classes int32 [N, n]


def keep(
    scene: Scene, threshold: float, slots: int, inclusive: bool = False, agnostic: bool = False, plus_one: float = 0
) -> Any:
    """int64 [N, slots]: the kept candidates in order, -1 in empty slots. Candidate by candidate, all images at once."""
    boxes, scores, classes = scene
    images, n = scores.shape
    order = np.argsort(-scores, axis=1, kind="stable")
    boxes = np.take_along_axis(boxes, order[..., None], 1)
    scores, classes = (np.take_along_axis(values, order, 1) for values in (scores, classes))
    with np.errstate(invalid="ignore", over="ignore"):
        side = boxes[..., 2:] - boxes[..., :2] + np.float32(plus_one)
        area = side[..., 0] * side[..., 1]
    kept = np.zeros((images, n), bool)
    for j in range(n):
        with np.errstate(invalid="ignore", over="ignore"):
            low = np.maximum(boxes[:, :, :2], boxes[:, j : j + 1, :2])
            high = np.minimum(boxes[:, :, 2:], boxes[:, j : j + 1, 2:])
            width, height = np.moveaxis(np.maximum(high - low + np.float32(plus_one), 0), -1, 0)
            inter = width * height
            iou = (inter / (area + area[:, j : j + 1] - inter)).astype(np.float64)
        over = (iou >= threshold) if inclusive else (iou > threshold)
        rival = over & (agnostic | (classes == classes[:, j : j + 1]))
        kept[:, j] = (scores[:, j] > 0) & ~(rival & kept)[:, :j].any(axis=1)
    result = np.full((images, slots), -1)
    for image, row in enumerate(kept):
        found = order[image, row][:slots]
        result[image, : len(found)] = found
    return result


@dataclass(frozen=True)
class Setting:
    images: int
    candidates: int
    slots: int
    threshold: float


SETTINGS = (
    Setting(4000, 14, 6, 0.6),
    Setting(3000, 10, 12, 0.5),
    Setting(2000, 24, 16, 0.6),
    Setting(1000, 40, 24, 0.3),
)


def scene_of(setting: Setting) -> Scene:
    """Eight kinds of images in turns."""
    rng = np.random.default_rng(setting.images)
    n, count = setting.candidates, setting.images // 8
    kinds = (_dense, _grid, _chain, _identical, _empty, _spread, _not_finite, _large)
    boxes = np.concatenate([kind(rng, count, n) for kind in kinds]).astype(np.float32)
    images = len(boxes)
    scores = rng.random((images, n))
    coarse = rng.choice([0.0, 0.25, 0.5, 0.5, 0.75], (images, n))  # many ties, some below the threshold
    scores = np.where(rng.random((images, 1)) < 0.5, coarse, scores)
    scores[rng.random(images) < 0.02] = 0
    classes = rng.integers(0, CLASSES, (images, n)) * (rng.random((images, 1)) < 0.7)
    return boxes, scores.astype(np.float32), classes.astype(np.int32)


def _corners(low: Any, size: Any) -> Any:
    low, size = np.broadcast_arrays(low, size)
    return np.concatenate([low, low + size], axis=2)


def _dense(rng: Any, count: int, n: int) -> Any:
    return _corners(rng.uniform(-5, 15, (count, n, 2)), rng.uniform(4, 30, (count, n, 2)))


def _grid(rng: Any, count: int, n: int) -> Any:
    """Few whole numbers: exact ties of the IoU, with the threshold too (6 of 10, 3 of 5, 1 of 2, 3 of 10)."""
    return _corners(rng.integers(0, 2, (count, n, 2)), rng.choice([3, 5, 6, 10], (count, n, 2)))


def _chain(rng: Any, count: int, n: int) -> Any:
    """Each overlaps the next, at steps that lie on both sides of the thresholds; scores order them anyhow."""
    step = rng.choice([5.0, 10.0, 12.5, 20.0], (count, 1, 1))
    low = np.arange(n).reshape(1, n, 1) * step * np.array([1.0, 0.0])
    return _corners(low, np.full((count, n, 2), 50.0))


def _identical(rng: Any, count: int, n: int) -> Any:
    three = _corners(rng.uniform(0, 20, (count, 3, 2)), rng.uniform(5, 20, (count, 3, 2)))
    return np.take_along_axis(three, rng.integers(0, 3, (count, n, 1)), 1)


def _empty(rng: Any, count: int, n: int) -> Any:
    """Points and lines among small boxes."""
    return _corners(rng.integers(0, 3, (count, n, 2)), rng.integers(0, 3, (count, n, 2)))


def _spread(rng: Any, count: int, n: int) -> Any:
    """Nothing overlaps: more survivors than slots."""
    low = np.stack([np.arange(n) * 30.0, np.zeros(n)], axis=1)[None]
    return _corners(low, rng.uniform(1, 25, (count, n, 2)))


def _not_finite(rng: Any, count: int, n: int) -> Any:
    boxes = _dense(rng, count, n)
    boxes[..., :2] = np.where(rng.random((count, n, 2)) < 0.1, -np.inf, boxes[..., :2])
    boxes[..., 2:] = np.where(rng.random((count, n, 2)) < 0.1, np.inf, boxes[..., 2:])
    return np.where(rng.random((count, n, 4)) < 0.03, np.nan, boxes)


def _large(rng: Any, count: int, n: int) -> Any:
    """Where float32 rounds the areas, and some are infinite."""
    scale = rng.choice([1e4, 1e10, 1e19], (count, 1, 1))
    return _dense(rng, count, n) * scale


def kept_by(form: str, scene: Scene, threshold: float, slots: int) -> tuple[Any, Any]:
    """int64 [N, slots]: the kept candidates, -1 in empty slots; and their scores, 0 there."""
    boxes, scores, classes = scene
    images, n = scores.shape
    feeds = {"boxes": boxes, "scores": scores, "classes": classes}
    inputs = {name: variable(f"in_{name}", values) for name, values in feeds.items()}
    numbers = gs.Constant("numbers", np.tile(np.arange(n), (images, 1)))
    names = tuple(f"class {i}" for i in range(CLASSES))
    spec = replace(SPEC, class_names=names, nms_threshold=threshold, max_detections=slots, nms=form)
    graph = gs.Graph(opset=17, inputs=list(inputs.values()))
    candidates = Candidates(images, n, inputs["boxes"], inputs["scores"], inputs["classes"], numbers)
    kept = append_nms(graph, candidates, spec)
    outputs = {"valid": kept.valid, "locations": kept.locations, "scores": kept.scores, "boxes": kept.boxes}
    got = run_graph(graph, outputs, {f"in_{name}": values for name, values in feeds.items()})
    picked = np.take_along_axis(boxes, got["locations"][..., None], 1)
    assert np.array_equal(got["boxes"], picked, equal_nan=True)
    return np.where(got["valid"], got["locations"], -1), np.where(got["valid"], got["scores"], 0)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_both_forms_keep_what_the_oracle_keeps(setting: Setting) -> None:
    scene = scene_of(setting)
    wanted = keep(scene, setting.threshold, setting.slots)
    for form in FORMS:
        got, scores = kept_by(form, scene, setting.threshold, setting.slots)
        different = np.flatnonzero((got != wanted).any(axis=1))
        assert not len(different), f"{form}: {len(different)} images, the first is {different[0]}"
        assert (np.diff(scores, axis=1) <= 0).all()


def test_the_random_images_hold_every_kind_of_trouble() -> None:
    """Each deliberate mistake changes a good many of the images, so the comparison above would notice it."""
    settings = [(s, scene_of(s)) for s in SETTINGS]
    assert sum(len(scores) for _, (_, scores, _) in settings) == 10_000
    mistakes: tuple[dict[str, Any], ...] = ({"inclusive": True}, {"agnostic": True}, {"plus_one": 1.0})
    for mistake in mistakes:
        changed = [
            (keep(scene, s.threshold, s.slots) != keep(scene, s.threshold, s.slots, **mistake)).any(axis=1).sum()
            for s, scene in settings
        ]
        assert sum(changed) > 100, mistake
    full = [(keep(scene, s.threshold, s.slots)[:, -1] >= 0).sum() for s, scene in settings]
    nothing = [(scene[1] <= 0).all(axis=1).sum() for _, scene in settings]
    assert sum(full) > 1000
    assert sum(nothing) > 50


@pytest.mark.parametrize("form", FORMS)
def test_many_classes_and_candidates(form: str) -> None:
    rng = np.random.default_rng(4)
    low, size = rng.uniform(0, 400, (2, 1500, 2)), rng.uniform(20, 90, (2, 1500, 2))
    boxes = np.concatenate([low, low + size], axis=2).astype(np.float32)
    scores = rng.permutation(3000).reshape(2, 1500).astype(np.float32) / 3000
    scene = (boxes, scores, rng.integers(0, CLASSES, (2, 1500)).astype(np.int32))
    assert np.array_equal(kept_by(form, scene, 0.3, 200)[0], keep(scene, 0.3, 200))
