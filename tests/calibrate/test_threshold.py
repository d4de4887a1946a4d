"""Thresholds against brute force on the values themselves, which knows nothing of histograms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trt_blendmask.calibrate.histogram import Counts, Histogram
from trt_blendmask.calibrate.threshold import IDLE, METHODS, squared_error, threshold

SIZE = 60_000
Values = np.ndarray


def counts_of(values: Values) -> Counts:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram.freeze()


def true_error(values: Values, bound: float) -> float:
    """Sum of squared errors of q = clip(round(x / s), -128, 127) * s, s = bound / 127."""
    scale = bound / 127
    return float(np.square(values - np.clip(np.rint(values / scale), -128, 127) * scale).sum())


def best_error(values: Values) -> float:
    """The least error of all thresholds: on a dense grid, and a denser one about the best of it."""
    values = values[values != 0].astype(np.float64)
    peak = np.abs(values).max()
    coarse = peak * np.geomspace(0.01, 1, 120)
    errors = [true_error(values, bound) for bound in coarse]
    best = coarse[int(np.argmin(errors))]
    return min(errors + [true_error(values, bound) for bound in np.minimum(best * np.linspace(0.96, 1.04, 80), peak)])


def sparse(rng: np.random.Generator, share: float) -> Values:
    return np.where(rng.random(SIZE) < share, rng.exponential(3, SIZE), 0)


TENSORS: dict[str, Callable[[np.random.Generator], Values]] = {
    "one-sided": lambda rng: np.maximum(rng.laplace(size=SIZE), 0),
    "one-sided below zero": lambda rng: -rng.gamma(2, 1, SIZE),
    "two-sided": lambda rng: rng.standard_normal(SIZE),
    "two-sided, shifted": lambda rng: rng.gamma(2, 1, SIZE) - 1,
    "mostly negative": lambda rng: -(rng.gamma(2, 1, SIZE) - 1),
    "heavy tail": lambda rng: rng.standard_t(2, SIZE),
    "very heavy tail, one side": lambda rng: np.abs(rng.standard_t(1.2, SIZE)),
    "lognormal": lambda rng: rng.lognormal(0, 3, SIZE),
    "sparse": lambda rng: sparse(rng, 0.01),
    "very sparse": lambda rng: sparse(rng, 0.002),
    "uniform": lambda rng: rng.random(SIZE) * 7,
    "tiny": lambda rng: rng.standard_normal(SIZE) * 1e-12,
    "large": lambda rng: rng.standard_normal(SIZE) * 1e12,
}


@pytest.mark.parametrize("name", TENSORS)
def test_mse_is_within_one_per_cent_of_brute_force(name: str) -> None:
    values = TENSORS[name](np.random.default_rng(3)).astype(np.float32)
    least = best_error(values)
    found = threshold(counts_of(values), "mse")
    assert true_error(values.astype(np.float64), found) <= 1.01 * least
    # The bar has teeth: on most tensors neither the maximum nor a threshold a fifth lower passes it.
    if name in ("one-sided", "two-sided", "two-sided, shifted", "mostly negative"):
        assert true_error(values.astype(np.float64), float(np.abs(values).max())) > 1.05 * least
        assert true_error(values.astype(np.float64), 0.8 * found) > 1.01 * least


def test_the_error_is_that_of_the_values() -> None:
    values = np.random.default_rng(4).standard_t(4, SIZE).astype(np.float32)
    counts = counts_of(values)
    for share in (0.05, 0.3, 0.7, 1.0):
        bound = share * counts.peak
        assert squared_error(counts, bound) == pytest.approx(true_error(values.astype(np.float64), bound), rel=2e-3)


def test_negative_values_have_one_level_more() -> None:
    """-128 is used, as TensorRT does: the same values with the other sign lose less."""
    values = np.random.default_rng(5).gamma(2, 1, SIZE)
    above, below = counts_of(values), counts_of(-values)
    assert squared_error(below, 5.0) < squared_error(above, 5.0)
    lone = counts_of(np.array([-128.0, -127.5, -1.0]))
    assert squared_error(lone, 127.0) < 0.26 < 1 < squared_error(counts_of(np.array([128.0, 127.5, 1.0])), 127.0)


def test_minmax_and_percentile_are_what_they_say() -> None:
    values = np.random.default_rng(6).standard_normal(1_000_000).astype(np.float32)
    counts = counts_of(values)
    assert np.float32(threshold(counts, "minmax")) == np.abs(values).max()
    expected = np.percentile(np.abs(values).astype(np.float64), 99.999, method="inverted_cdf")
    assert expected <= threshold(counts, "percentile") <= expected + counts.width


def slow_entropy(values: Values) -> float:
    """The same definition, written down one bin after the other, on histograms of the values."""
    counts = counts_of(values)
    peak_bin = int(counts.peak / counts.width) + 1
    width = counts.width * -(-peak_bin // 2048)
    magnitudes = np.abs(values[values != 0]).astype(np.float64)
    hist = np.bincount((magnitudes / width).astype(int)).astype(float)
    best, least = 0, np.inf
    for end in range(128, len(hist) + 1, 1):
        p = hist[:end].copy()
        p[-1] += hist[end:].sum()
        q = np.zeros(end)
        for level in range(128):
            members = (
                [b for b in range(end) if b * 128 // end == level]
                if end < 140
                else range(-(-level * end // 128), -(-(level + 1) * end // 128))
            )
            filled = [b for b in members if hist[b] > 0]
            for b in filled:
                q[b] = sum(hist[m] for m in filled) / len(filled)
        if p[-1] > 0 and q[-1] == 0:
            continue
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
        if divergence <= least + 1e-12:
            best, least = end, divergence
    return best * width


def test_entropy_clips_a_tail_and_agrees_with_its_definition() -> None:
    values = np.maximum(np.random.default_rng(7).laplace(size=20_000), 0).astype(np.float32)
    values[0] = 60  # one outlier: a max calibration in disguise would keep it
    found = threshold(counts_of(values), "entropy")
    assert found == pytest.approx(slow_entropy(values), rel=1e-6)
    assert 5 < found < 30


@pytest.mark.parametrize("method", METHODS)
def test_constant_and_dead_tensors_get_a_scale_above_zero(method: str) -> None:
    for value in (3.25, -0.1, 1e-20):
        found = threshold(counts_of(np.full(1000, value)), method)
        assert found == pytest.approx(abs(value), rel=1e-6)
    half = np.where(np.arange(1000) % 2, 2.5, 0.0)
    assert threshold(counts_of(half), method) == 2.5
    assert threshold(counts_of(np.zeros(1000)), method) == IDLE > 0
    for nothing in (1e-42, 1e-36):  # its step would not be a normal float32
        assert threshold(counts_of(np.full(1000, nothing)), method) == IDLE


@pytest.mark.parametrize("method", METHODS)
def test_no_threshold_leaves_the_range_of_the_values(method: str) -> None:
    for make in TENSORS.values():
        values = make(np.random.default_rng(8)).astype(np.float32)
        assert 0 < threshold(counts_of(values), method) <= np.float32(np.abs(values).max()) * (1 + 1e-6)
