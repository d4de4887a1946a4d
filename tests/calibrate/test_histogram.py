"""The observer against NumPy's own histogram, and that neither order nor batches leave a trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_blendmask.calibrate.histogram import BINS, Counts, Histogram


def observe(*pieces: np.ndarray) -> Counts:
    histogram = Histogram()
    for piece in pieces:
        histogram.add(piece.astype(np.float32))
    return histogram.freeze()


def same(one: Counts, other: Counts) -> bool:
    equal = all(np.array_equal(getattr(one, side), getattr(other, side)) for side in ("positive", "negative"))
    rest = ("width", "zeros", "low", "high")
    return equal and all(getattr(one, name) == getattr(other, name) for name in rest)


def test_counts_are_those_of_numpy() -> None:
    values = np.random.default_rng(1).standard_t(3, 100_000).astype(np.float32)
    values[::3] = 0
    counts = observe(*np.array_split(values, 17))
    edges = np.arange(BINS + 1) * counts.width
    assert counts.high < edges[-1] <= 2 * counts.peak  # no bin more than needed, twice as wide would be enough
    np.testing.assert_array_equal(counts.positive, np.histogram(values[values > 0].astype(np.float64), edges)[0])
    below = -values[values < 0].astype(np.float64)
    np.testing.assert_array_equal(counts.negative, np.histogram(below, edges)[0])
    assert (counts.zeros, counts.low, counts.high) == (np.sum(values == 0), values.min(), values.max())


@given(st.integers(0, 2**32 - 1), st.integers(-30, 30), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_order_and_batches_leave_no_trace(seed: int, exponent: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(120) * 10.0 ** rng.uniform(-5, 0, 120) * 2.0**exponent).astype(np.float32)
    values[:12] = 0
    shuffled = rng.permutation(values)
    assert same(observe(values), observe(*np.array_split(shuffled, pieces)))
    assert same(observe(values), observe(*(shuffled[np.argsort(np.abs(shuffled))].reshape(-1, 1))))  # widths grow
    changed = shuffled.copy()
    changed[changed != 0] = np.nextafter(changed[changed != 0] * 2, np.float32(0))
    assert not same(observe(values), observe(changed))


@pytest.mark.parametrize("outlier", [3e38, -1e30, 1e5, 1e-3])
def test_order_leaves_no_trace_beside_an_outlier(outlier: float) -> None:
    """A value that is nothing beside the outlier stays on its side of zero, whether it came before or after it."""
    values = np.array([-1e-11, 1e-12, -1e-38, -1e-45, 1e-45, 0.0, -0.0, -1.0, 1.0], np.float32)
    first, last = observe(np.array([outlier]), values), observe(*values.reshape(-1, 1), np.array([outlier]))
    assert same(first, last)
    assert (first.zeros, int(first.negative.sum())) == (2, 4 + (outlier < 0))
    assert same(observe(np.zeros(5), values), observe(values, np.zeros(5)))  # nor zeros that came first


def test_powers_of_two_fall_into_the_upper_bin() -> None:
    counts = observe(np.array([1.0, 0.5, -0.5, -1.0]))
    assert counts.positive[int(1 / counts.width)] == counts.positive[int(0.5 / counts.width)] == 1
    assert counts.negative.sum() == 2


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_no_numbers_are_refused(value: float, word: str) -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match=word):
        histogram.add(np.array([1, value, 2], np.float32))
    assert histogram.freeze().positive.sum() == 0


@pytest.mark.parametrize("value", [0.0, 1e-40, 3e38, -3e38])
def test_extreme_values_are_counted(value: float) -> None:
    counts = observe(np.full(10, value))
    assert counts.zeros + int(counts.magnitudes.sum()) == 10
    assert counts.peak == abs(np.float32(value))


def test_nothing_at_all() -> None:
    counts = observe(np.zeros(0))
    assert (counts.peak, counts.zeros, int(counts.magnitudes.sum())) == (0, 0, 0)
