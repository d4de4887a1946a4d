"""The boundary F-score against loops over all pairs of outline pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trt_blendmask.compare.boundary import REACH, boundary_f
from trt_blendmask.paste import Patch

WH = (120, 90)


def outline(patch: Patch) -> list[tuple[int, int]]:
    full = np.zeros((WH[1], WH[0]), bool)
    rows, columns = patch.mask.shape
    full[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.mask
    found = []
    for y, x in np.argwhere(full).tolist():
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        if not all(0 <= v < WH[1] and 0 <= u < WH[0] and full[v, u] for v, u in around):
            found.append((y, x))
    return found


def by_loops(one: Patch, other: Patch) -> float:
    a, b = outline(one), outline(other)
    if not a or not b:
        return float(len(a) == len(b))
    reach = math.ceil(REACH * math.hypot(*WH))
    precision = np.mean([min(math.dist(p, q) for q in b) <= reach for p in a])
    recall = np.mean([min(math.dist(p, q) for q in a) <= reach for p in b])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def blob(random: np.random.Generator) -> Patch:
    width, height = random.integers(8, 40, 2).tolist()
    x, y = int(random.integers(0, WH[0] - width)), int(random.integers(0, WH[1] - height))
    grid = np.indices((height, width))
    centre, radius = random.uniform(5, 25, 2), random.uniform(4, 20)
    return Patch(x, y, np.hypot(grid[0] - centre[0], grid[1] - centre[1]) < radius)


@pytest.mark.parametrize("seed", range(6))
def test_equals_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    one = blob(random)
    moved = Patch(min(one.x + int(random.integers(0, 4)), WH[0] - one.mask.shape[1]), one.y, one.mask)
    for other in (moved, blob(random)):
        assert boundary_f(one, other, WH) == pytest.approx(by_loops(one, other), abs=1e-9)
        assert boundary_f(other, one, WH) == pytest.approx(by_loops(one, other), abs=1e-9)


def test_tells_what_mask_iou_hides() -> None:
    """A notch in a large object: IoU hardly moves, its outline does."""
    whole = np.ones((60, 60), bool)
    notched = whole.copy()
    notched[10:50, 28:31] = False
    one, other = Patch(10, 10, whole), Patch(10, 10, notched)
    assert (whole & notched).sum() / whole.sum() > 0.96
    assert boundary_f(one, other, WH) < 0.9
    assert boundary_f(one, one, WH) == 1


def test_nothing_agrees_with_nothing() -> None:
    empty, full = Patch(3, 3, np.zeros((4, 4), bool)), Patch(3, 3, np.ones((4, 4), bool))
    assert boundary_f(None, None, WH) == boundary_f(empty, None, WH) == 1
    assert boundary_f(empty, full, WH) == boundary_f(full, None, WH) == 0
