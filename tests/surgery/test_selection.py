"""Selection and suppression against the float64 oracle, and at the edges of their rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.surgery.graphs import SPEC, run_selection
from tests.surgery.oracle import iou, select, sigmoid
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.nms import just_above

INPUT_HW = (64, 96)
STRIDES = [8, 16]
SMALL = replace(SPEC, max_detections=20, score_threshold=0.05)


def random_levels(rng: np.random.Generator, batch: int, classes: int, coarse: bool) -> list[dict[str, Any]]:
    """Coarse values tie and overlap exactly; all coordinates are exact in float32."""
    levels = []
    for stride in STRIDES:
        h, w = INPUT_HW[0] // stride, INPUT_HW[1] // stride
        values = [-6.0, -1.0, 0.0, 2.0] if coarse else np.linspace(-6, 3, 97)
        steps = [0.0, 0.5, 1.0, 2.0, 2.5, 4.0] if coarse else np.arange(0, 48) / 8
        levels.append(
            {
                "logits": rng.choice(values, (batch, classes, h, w)).astype(np.float32),
                "reg": rng.choice(steps, (batch, 4, h, w)).astype(np.float32),
                "ctr": rng.choice(values, (batch, 1, h, w)).astype(np.float32),
                "top": rng.standard_normal((batch, 36, h, w)).astype(np.float32),
            }
        )
    return levels


def one_level(boxes: Any, logits: Any, classes: int = 1) -> tuple[list[dict[str, Any]], list[int], tuple[int, int]]:
    """One row of locations of stride 8 with integer `boxes` [n, 4] and logits [n] or [n, classes]; centerness is 1."""
    boxes, n = np.asarray(boxes, np.float64), len(boxes)
    centre = np.stack([np.arange(n) * 8 + 4, np.full(n, 4)], axis=1)
    reg = np.concatenate([centre - boxes[:, :2], boxes[:, 2:] - centre], axis=1) / 8
    level = {
        "logits": np.asarray(logits, np.float32).reshape(n, classes).T.reshape(1, classes, 1, n),
        "reg": reg.T.reshape(1, 4, 1, n),
        "ctr": np.full((1, 1, 1, n), 20.0),
        "top": np.zeros((1, 36, 1, n)),
    }
    return [level], [8], (8, 8 * n)


def check(levels: list[dict[str, Any]], spec: ModelSpec) -> None:
    for n, got in enumerate(run_selection(levels, STRIDES, INPUT_HW, spec)):
        compare(got, select(levels, STRIDES, n, spec))


def compare(got: dict[str, Any], wanted: list[Any]) -> None:
    assert got["locations"].tolist() == [w[2] for w in wanted]
    assert got["classes"].tolist() == [w[1] for w in wanted]
    np.testing.assert_allclose(got["boxes"], np.reshape([w[3] for w in wanted], (-1, 4)), rtol=0, atol=1e-4)
    np.testing.assert_allclose(got["scores"], [w[0] for w in wanted], rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 3),
    coarse=st.booleans(),
    with_ctr=st.booleans(),
    slots=st.sampled_from([1, 7, 40, 300]),
    topk=st.sampled_from([3, 20, 1000]),
    nms=st.sampled_from([-1.0, 0.2, 0.5, 0.6, 1.0]),
    form=st.sampled_from(["matrix", "op"]),
)
def test_like_the_oracle(
    seed: int, classes: int, coarse: bool, with_ctr: bool, slots: int, topk: int, nms: float, form: str
) -> None:
    levels = random_levels(np.random.default_rng(seed), 1, classes, coarse)
    spec = replace(SMALL, thresh_with_ctr=with_ctr, max_detections=slots, pre_nms_topk=topk, nms_threshold=nms)
    spec = replace(spec, nms=form)
    check(levels, spec)


@pytest.mark.parametrize("topk", [10, 1000])
def test_a_batch_is_its_images(topk: int) -> None:
    levels = random_levels(np.random.default_rng(5), 3, 2, coarse=False)
    spec = replace(SMALL, pre_nms_topk=topk)
    together = run_selection(levels, STRIDES, INPUT_HW, spec)
    check(levels, spec)
    for n, image in enumerate(together):
        alone = run_selection([{k: v[n : n + 1] for k, v in lv.items()} for lv in levels], STRIDES, INPUT_HW, spec)[0]
        for name in image:
            assert np.array_equal(image[name], alone[name]), name


@pytest.mark.parametrize(
    "mistake",
    [
        {"sqrt_first": True},
        {"clip": INPUT_HW},
        {"across_classes": True},
    ],
)
def test_mistakes_would_be_noticed(mistake: dict[str, Any]) -> None:
    levels = random_levels(np.random.default_rng(1), 1, 2, coarse=False)
    spec = replace(SMALL, max_detections=100)
    got = run_selection(levels, STRIDES, INPUT_HW, spec)[0]
    compare(got, select(levels, STRIDES, 0, spec))
    with pytest.raises(AssertionError):
        compare(got, select(levels, STRIDES, 0, spec, **mistake))


def test_the_threshold_is_strict() -> None:
    boxes = [[0, 0, 8, 8], [40, 0, 48, 8]]
    levels, strides, size = one_level(boxes, [0.0, 1.0])
    levels[0]["ctr"][:] = 0  # sigmoid(0)^2 is 0.25 in any arithmetic
    spec = replace(SMALL, score_threshold=0.25)
    got = run_selection(levels, strides, size, spec)[0]
    compare(got, select(levels, strides, 0, spec))
    assert got["locations"].tolist() == [1]
    with pytest.raises(AssertionError):
        compare(got, select(levels, strides, 0, spec, inclusive=True))


def test_an_iou_of_exactly_the_float32_threshold_is_suppressed() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 6]]  # 60 / 100 is float32(0.6), a little more than the double 0.6
    levels, strides, size = one_level(boxes, [2.0, 1.0])
    assert run_selection(levels, strides, size, SMALL)[0]["locations"].tolist() == [0]
    half = replace(SMALL, nms_threshold=0.5)  # 0.5 is the same number in both, and not above itself
    levels, strides, size = one_level([[0, 0, 10, 10], [0, 0, 10, 5]], [2.0, 1.0])
    assert run_selection(levels, strides, size, half)[0]["locations"].tolist() == [0, 1]


@given(threshold=st.floats(0.01, 1), steps=st.integers(-2, 2))
def test_just_above(threshold: float, steps: int) -> None:
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.sign(steps) * np.inf))
    assert (value > just_above(threshold)) == (float(value) > threshold)


def test_a_long_chain_is_resolved() -> None:
    """Each box overlaps the next too much, and not the one after: every second one stays, however long the chain."""
    n = 90
    boxes = [[10 * i, 0, 10 * i + 50, 50] for i in range(n)]
    assert iou(boxes[0], boxes[1]) > 0.6 > iou(boxes[0], boxes[2])
    levels, strides, size = one_level(boxes, np.linspace(3, 0, n))
    got = run_selection(levels, strides, size, replace(SMALL, max_detections=50))[0]
    assert got["locations"].tolist() == list(range(0, n, 2))


def test_more_candidates_than_a_block_of_the_table() -> None:
    rng = np.random.default_rng(3)
    levels = [
        {
            "logits": rng.standard_normal((2, 4, 24, 24)),
            "reg": rng.integers(0, 40, (2, 4, 24, 24)) / 8,
            "ctr": rng.standard_normal((2, 1, 24, 24)),
            "top": np.zeros((2, 36, 24, 24)),
        }
    ]
    levels = [{k: v.astype(np.float32) for k, v in levels[0].items()}]
    spec = replace(SMALL, max_detections=150)
    for n, got in enumerate(run_selection(levels, [8], (192, 192), spec)):
        compare(got, select(levels, [8], n, spec))


def test_empty_boxes_never_suppress_one_another() -> None:
    levels, strides, size = one_level([[4, 4, 4, 4]] * 3, [1.0, 2.0, 3.0])
    assert run_selection(levels, strides, size, SMALL)[0]["locations"].tolist() == [2, 1, 0]


def test_not_a_number_is_no_candidate_and_suppresses_nothing() -> None:
    levels, strides, size = one_level([[0, 0, 8, 8]] * 4, [3.0, 2.0, 1.0, np.nan])
    levels[0]["reg"][0, :, 0, 0] = np.nan
    got = run_selection(levels, strides, size, SMALL)[0]
    assert got["locations"].tolist() == [0, 1]
    assert np.isnan(got["boxes"][0]).all()


@pytest.mark.parametrize("nms", [0.0, 0.6])
def test_nothing_found(nms: float) -> None:
    levels, strides, size = one_level([[0, 0, 8, 8]] * 4, [-9.0] * 4)
    assert len(run_selection(levels, strides, size, replace(SMALL, nms_threshold=nms))[0]["scores"]) == 0


def test_oracle_sigmoid() -> None:
    assert sigmoid(0) == 0.5
    assert sigmoid(-1000) == 0


def test_survivors_far_down_the_list_are_found() -> None:
    boxes = [[0, 0, 80, 8]] * 2500 + [[100 * i, 0, 100 * i + 50, 8] for i in range(1, 11)]
    levels, strides, size = one_level(boxes, np.linspace(4, 1, len(boxes)))
    got = run_selection(levels, strides, size, replace(SMALL, pre_nms_topk=3000))[0]
    assert got["locations"].tolist() == [0, *range(2500, 2510)]
