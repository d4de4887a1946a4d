"""The native tail against the float64 oracle, and with boxes nobody should have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.surgery.graphs import SPEC, run_tail
from tests.surgery.oracle import blend
from trt_blendmask.structures import ModelSpec

MASK = 1e-4
BASES_HW = (10, 14)
INPUT_HW = (40, 56)


def case(seed: int, spec: ModelSpec, batch: int = 1, slots: int = 4) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    bases = (3 * rng.standard_normal((batch, spec.num_bases, *BASES_HW))).astype(np.float32)
    low = rng.uniform(-12, 45, (batch, slots, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 30, (batch, slots, 2))], axis=2).astype(np.float32)
    attention = 2 * rng.standard_normal((batch * slots, spec.num_bases * spec.attention_size**2))
    return bases, boxes, attention.astype(np.float32)


def oracle_masks(bases: Any, boxes: Any, attention: Any, spec: ModelSpec, **mistake: Any) -> Any:
    slots = boxes.shape[1]
    return np.stack(
        [
            blend(bases[i // slots], boxes.reshape(-1, 4)[i], attention[i], spec, **mistake)
            for i in range(len(attention))
        ]
    )


def decided_by_rounding(boxes: Any, spec: ModelSpec) -> Any:
    """bool [N * D, R, R]: a sample within 2e-3 of the cut-off at -1 or the size."""
    axes = []
    for axis, size in ((1, BASES_HW[0]), (0, BASES_HW[1])):
        start, end = (boxes.reshape(-1, 4)[:, i].astype(np.float64) * spec.spatial_scale for i in (axis, axis + 2))
        start, end = (v - (0.5 if spec.aligned else 0) for v in (start, end))
        length = end - start if spec.aligned else np.maximum(end - start, 1)
        samples = (np.arange(spec.mask_size * spec.sampling_ratio) + 0.5) / spec.sampling_ratio / spec.mask_size
        at = start[:, None] + samples * length[:, None]
        near = np.minimum(abs(at + 1), abs(at - size)) < 2e-3
        axes.append(near.reshape(len(at), spec.mask_size, -1).any(axis=2))
    return axes[0][:, :, None] | axes[1][:, None, :]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 4),
    m=st.sampled_from([1, 3, 5, 8]),
    r=st.sampled_from([2, 5, 8]),
    ratio=st.integers(1, 3),
    aligned=st.booleans(),
    mode=st.sampled_from(["bilinear", "nearest"]),
)
def test_like_the_oracle(seed: int, k: int, m: int, r: int, ratio: int, aligned: bool, mode: str) -> None:
    spec = replace(
        SPEC,
        num_bases=k,
        attention_size=m,
        mask_size=r,
        sampling_ratio=ratio,
        aligned=aligned,
        attention_interpolation=mode,
    )
    bases, boxes, attention = case(seed, spec, slots=2)
    error = np.abs(run_tail(bases, boxes, attention, spec) - oracle_masks(bases, boxes, attention, spec))
    assert np.where(decided_by_rounding(boxes, spec), 0, error).max() <= MASK


SMALL = replace(SPEC, num_bases=3, attention_size=4, mask_size=8)


@pytest.mark.parametrize(
    "mistake",
    [
        {"shift": 0.5},
        {"swap_xy": True},
        {"softmax_over": "rows"},
        {"softmax_over": "columns"},
        {"clip": INPUT_HW},
    ],
)
def test_mistakes_would_be_noticed(mistake: dict[str, Any]) -> None:
    bases, boxes, attention = case(2, SMALL)
    got = run_tail(bases, boxes, attention, SMALL)
    assert np.abs(got - oracle_masks(bases, boxes, attention, SMALL)).max() <= MASK
    assert np.abs(got - oracle_masks(bases, boxes, attention, SMALL, **mistake)).max() > 100 * MASK


def test_a_batch_is_its_images() -> None:
    bases, boxes, attention = case(3, SMALL, batch=2, slots=3)
    together = run_tail(bases, boxes, attention, SMALL)
    for n in range(2):
        alone = run_tail(bases[n : n + 1], boxes[n : n + 1], attention[3 * n : 3 * n + 3], SMALL)
        np.testing.assert_allclose(together[3 * n : 3 * n + 3], alone, rtol=0, atol=1e-6)
    assert np.abs(together - oracle_masks(bases, boxes, attention, SMALL)).max() <= MASK


@pytest.mark.parametrize(
    "box",
    [
        [np.nan] * 4,
        [0, np.nan, 8, 8],
        [-np.inf, -np.inf, np.inf, np.inf],
        [0, 0, np.inf, 8],
        [-3e38, 0, 3e38, 8],
        [30, 30, 10, 10],
        [1e9, 1e9, 1e9 + 64, 1e9 + 64],
        [5, 5, 5, 5],
    ],
)
def test_masks_stay_finite(box: list[float]) -> None:
    bases, boxes, attention = case(4, SMALL, slots=2)
    boxes[0, 0] = box
    masks = run_tail(bases, boxes, attention, SMALL)
    assert np.isfinite(masks).all()
    assert (masks >= 0).all()
    assert (masks <= 1).all()


def test_far_outside_is_exactly_one_half() -> None:
    bases, boxes, attention = case(5, SMALL, slots=1)
    boxes[:] = [1000, 1000, 1100, 1100]
    assert (run_tail(bases, boxes, attention, SMALL) == 0.5).all()
