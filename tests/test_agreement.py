"""The agreement of two sets of detections against a brute force on whole frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trt_blendmask.agreement import Agreement, compare_detections, smooth_quality
from trt_blendmask.errors import UsageError
from trt_blendmask.paste import paste_full
from trt_blendmask.structures import Detections

FRAME_WH = (90, 60)


def drawn(random: np.random.Generator, count: int) -> Detections:
    """Blobs of three classes in boxes that overlap and reach over the border."""
    corner = random.uniform((-8, -8), (70, 45), (count, 2))
    xyxy = np.concatenate([corner, corner + random.uniform(5, 40, (count, 2))], axis=1).astype(np.float32)
    scores = np.sort(random.uniform(0.05, 1, count).astype(np.float32))[::-1].copy()
    grid = (np.arange(14) + 0.5) / 14 - 0.5
    radius = random.uniform(0.2, 0.6, (count, 1, 1))
    masks = 1 / (1 + np.exp(20 * (np.hypot(grid[:, None], grid[None]) - radius)))
    classes = random.integers(0, 3, count).astype(np.int32)
    return Detections(xyxy, scores, classes, masks.astype(np.float32), FRAME_WH)


def jittered(random: np.random.Generator, found: Detections) -> Detections:
    """The same objects, moved a little, some lost, some of another class, a few new."""
    n = len(found)
    keep = random.uniform(size=n) > 0.15
    moved = (found.xyxy + random.normal(0, 1.5, (n, 4))).astype(np.float32)
    scores = np.clip(found.scores + random.normal(0, 0.05, n), 0, 1).astype(np.float32)
    classes = np.where(random.uniform(size=n) < 0.1, (found.classes + 1) % 3, found.classes).astype(np.int32)
    masks = np.clip(found.masks + random.normal(0, 0.2, found.masks.shape), 0, 1).astype(np.float32)
    extra = drawn(random, 2)
    return Detections(
        np.concatenate([moved[keep], extra.xyxy]),
        np.concatenate([scores[keep], extra.scores]),
        np.concatenate([classes[keep], extra.classes]),
        np.concatenate([masks[keep], extra.masks]),
        FRAME_WH,
    )


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    x = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    y = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - x * y
    return float(x * y / union)


def brute_force(one: list[Detections], two: list[Detections]) -> tuple[list[float], int]:
    """F1, box IoU, mask IoU, score shift over all pictures, and the worst picture; loops and whole frames only."""
    found, rows, qualities = 0, [], []
    for a, b in zip(one, two, strict=True):
        left = [i for i in range(len(a)) if a.scores[i] >= 0.3]
        right = [j for j in range(len(b)) if b.scores[j] >= 0.3]
        own = len(left) + len(right)
        full_a, full_b = paste_full(a), paste_full(b)
        picture = []
        while True:
            best = max(
                ((box_iou(a.xyxy[i], b.xyxy[j]), i, j) for i, j in itertools.product(left, right)
                 if a.classes[i] == b.classes[j]),
                default=(0.0, -1, -1),
            )  # fmt: skip
            if best[0] < 0.5:
                break
            iou, i, j = best
            left.remove(i)
            right.remove(j)
            union = int((full_a[i] | full_b[j]).sum())
            mask = int((full_a[i] & full_b[j]).sum()) / union if union else 1.0
            picture.append((iou, mask, abs(float(a.scores[i]) - float(b.scores[j]))))
        rows += picture
        found += own
        qualities.append(2 * sum(row[1] for row in picture) / own if own else 1.0)
    means = [sum(row[k] for row in rows) / len(rows) for k in range(3)]
    return [2 * len(rows) / found, *means], qualities.index(min(qualities))


def measured(result: Agreement) -> list[float]:
    return [result.f1, result.box_iou, result.mask_iou, result.score_shift]


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    one = [drawn(random, int(random.integers(0, 12))) for _ in range(12)]
    two = [jittered(random, found) for found in one]
    result = compare_detections(one, two)
    expected, worst = brute_force(one, two)
    assert measured(result) == pytest.approx(expected, abs=1e-6)
    assert result.worst_index == worst
    assert 0.5 < result.f1 < 0.95
    assert result.mask_iou < 0.95
    assert measured(compare_detections(two, one)) == pytest.approx(expected, abs=1e-6)  # neither side is special


def test_of_a_model_with_itself_is_whole() -> None:
    found = [drawn(np.random.default_rng(5), 9)]
    result = compare_detections(found, found)
    assert measured(result) == [1, 1, 1, 0]
    assert result.quality == 1


def one_object(mask: float = 1.0, score: float = 0.9, of_class: int = 0, x: float = 10) -> Detections:
    masks = np.full((1, 14, 14), mask, dtype=np.float32)
    box = np.array([[x, 10, x + 20, 30]], dtype=np.float32)
    return Detections(box, np.array([score], np.float32), np.array([of_class], np.int32), masks, FRAME_WH)


NOTHING = one_object(score=0.1)


@pytest.mark.parametrize(
    ("two", "expected"),
    [
        (one_object(of_class=1), [0, 0, 0, 0]),  # another class is another object
        (one_object(score=0.29), [0, 0, 0, 0]),  # below the score it was not found
        (one_object(mask=0.0), [1, 1, 0, 0]),  # the box alone is not the object
        (one_object(score=0.5), [1, 1, 1, 0.4]),
        (one_object(x=15), [1, 0.6, 0.6, 0]),
        (one_object(x=17), [0, 0, 0, 0]),  # IoU 0.48
    ],
)
def test_each_fault_is_seen_where_it_belongs(two: Detections, expected: list[float]) -> None:
    assert measured(compare_detections([one_object()], [two])) == pytest.approx(expected, abs=1e-6)


def test_nothing_found_by_either_agrees() -> None:
    assert measured(compare_detections([NOTHING], [NOTHING])) == [1, 1, 1, 0]
    assert measured(compare_detections([one_object(mask=0)], [one_object(mask=0)])) == [1, 1, 1, 0]


def test_masks_are_compared_in_the_frame_not_in_their_boxes() -> None:
    """A box grown by a quarter whose mask shows the same pixels: equal masks, unequal cells."""
    inner = one_object()
    box = np.array([[5, 5, 35, 35]], dtype=np.float32)
    grid = (np.arange(60) + 0.5) / 2
    inside = ((grid > 5) & (grid < 25)).astype(np.float32)
    outer = Detections(box, inner.scores, inner.classes, (inside[:, None] * inside[None])[None], FRAME_WH)
    shrunk = Detections(np.array([[8, 8, 32, 32]], np.float32), inner.scores, inner.classes, inner.masks, FRAME_WH)
    assert compare_detections([inner], [outer]).f1 == 0  # box IoU 0.44
    assert compare_detections([shrunk], [outer]).mask_iou == pytest.approx(400 / 576)


def test_other_numbers_of_pictures_are_refused() -> None:
    for two in ([], [NOTHING, NOTHING]):
        with pytest.raises(UsageError, match="as many pictures"):
            compare_detections([NOTHING], two)
    with pytest.raises(UsageError, match="as many pictures"):
        compare_detections([], [])


def test_a_lower_score_counts_more() -> None:
    faint = one_object(score=0.1)
    assert compare_detections([faint], [faint]).matched == 0
    assert compare_detections([faint], [faint], score=0.05).matched == 1


def test_the_smooth_quality_equals_the_plain_one_away_from_the_threshold() -> None:
    random = np.random.default_rng(8)
    one = [drawn(random, 9) for _ in range(6)]
    two = [jittered(random, found) for found in one]
    sure = [[found.keep(found.scores >= 0.4) for found in side] for side in (one, two)]
    assert smooth_quality(*sure) == pytest.approx(compare_detections(*sure).quality, abs=1e-9)
    assert smooth_quality([NOTHING], [NOTHING]) == 1


def test_the_smooth_quality_has_no_step_at_the_threshold() -> None:
    both = [
        smooth_quality([one_object(), one_object(score=0.3)], [one_object(), one_object(score=s)])
        for s in (0.299, 0.301)
    ]
    assert both[0] == pytest.approx(both[1], abs=0.01)
    alone = [smooth_quality([one_object(), NOTHING], [one_object(), one_object(score=s)]) for s in (0.2, 0.3, 0.4)]
    assert alone == pytest.approx([1, 2 / 2.5, 2 / 3], abs=1e-3)
