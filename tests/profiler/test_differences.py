"""Differences that are there are found, those that are not are not: on times whose truth is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from trt_blendmask.errors import DataError
from trt_blendmask.profiler.differences import MIN_ROUNDS, compare_times, midmean, noise_of
from trt_blendmask.profiler.report import Comparison, Distribution, ModelProfile

REPEATS = 100
ROUNDS = 30


def models(
    seed: int, factor: float = 1.0, rounds: int = ROUNDS, drift: float = 0.0, interleaved: bool = True
) -> list[ModelProfile]:
    """Two models in turns of two frames on a machine like a shared one: drift that hits both, scatter, and outliers."""
    rng, count = np.random.default_rng(seed), 2 * rounds
    common = np.zeros(count)
    for k in range(1, count):
        common[k] = 0.8 * common[k - 1] + rng.normal(0, 0.02)
    common += np.linspace(0, drift, count)
    times: list[list[float]] = [[], []]
    numbers: list[list[int]] = [[], []]
    for k in range(rounds):
        for place, which in enumerate(rng.permutation(2) if interleaved else (0, 1)):
            at = 2 * k + place if interleaved else k + which * rounds
            for _ in range(2):
                ms = 50 * float(np.exp(common[at] + rng.normal(0, 0.03))) * (factor if which else 1.0)
                times[which].append(ms * (rng.uniform(1, 2) if rng.random() < 0.05 else 1.0))
                numbers[which].append(k)
    return [
        ModelProfile(name, name, "", "", "FP32", (64, 96), None, 1, {"host": times[k]}, {"host": numbers[k]})
        for k, name in enumerate(("one", "other"))
    ]


@cache
def compared(seed: int, factor: float, **kind: float) -> Comparison:
    found = compare_times(*models(seed, factor, **kind), "host")  # type: ignore[arg-type]
    assert found is not None
    return found


def test_no_difference_is_called_one_in_at_most_5_of_100() -> None:
    assert sum(compared(seed, 1.0).differs for seed in range(REPEATS)) <= 5


def test_a_planted_slow_down_is_found_and_a_tiny_one_is_not_called() -> None:
    found = [compared(seed, 1.10) for seed in range(REPEATS)]
    assert sum(one.differs and one.ratio > 1 for one in found) >= 95
    assert sum(compared(seed, 1.01).differs for seed in range(REPEATS)) <= 5
    faster = [compared(seed, 1 / 1.10) for seed in range(REPEATS // 4)]
    assert sum(one.differs and one.ratio < 1 for one in faster) >= 23


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_the_interval_holds_the_truth(factor: float) -> None:
    found = [compared(seed, factor) for seed in range(REPEATS)]
    assert all(one.low <= one.ratio <= one.high for one in found)
    assert sum(one.low <= factor <= one.high for one in found) >= 88


def test_drift_hits_both() -> None:
    """A machine that gets slower by a third meanwhile: no difference in turns, but one after the other."""
    ratios = [compared(seed, 1.0, drift=0.3).ratio for seed in range(20)]
    assert max(abs(ratio - 1) for ratio in ratios) < 0.05
    apart = [compared(seed, 1.0, drift=0.3, interleaved=False).ratio for seed in range(20)]
    assert min(apart) > 1.08


def test_turned_round() -> None:
    one, other = models(3, 1.2)
    there, back = compare_times(one, other, "host"), compare_times(other, one, "host")
    assert there is not None
    assert back is not None
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert (back.one, back.other, back.differs) == ("other", "one", there.differs)
    assert there.noise_low == pytest.approx(1 / there.noise_high)


def test_noise_tells_how_far_off_no_difference_may_look() -> None:
    """As many comparisons of a model with itself stay within it as were promised."""
    inside = 0
    for seed in range(REPEATS):
        pair = models(seed)
        noise = noise_of(pair[0], "host")
        assert noise is not None
        inside += abs(np.log(compared(seed, 1.0).ratio)) <= np.log1p(noise)
    assert inside >= 85
    calm = models(0)[0]
    assert noise_of(ModelProfile(**{**calm.__dict__, "times": {"host": [5.0] * 60}}), "host") == 0


def test_too_few_rounds_say_nothing() -> None:
    few, enough = models(0, rounds=MIN_ROUNDS - 1), models(0, rounds=MIN_ROUNDS)
    assert compare_times(*few, "host") is None
    assert noise_of(few[0], "host") is None
    assert compare_times(*enough, "host") is not None
    assert compare_times(enough[0], few[1], "host") is None
    assert compare_times(*enough, "gpu") is None


def test_midmean() -> None:
    assert midmean(np.array([[1.0, 2, 3, 1000], [5, 5, 5, 5]])).tolist() == [2.5, 5]
    assert midmean(np.array([[7.0]])).tolist() == [7]


def test_distribution() -> None:
    seen = Distribution.from_samples([4.0, 1.0, 3.0, 2.0], (90, 25))
    assert (seen.count, seen.min_ms, seen.max_ms, seen.mean_ms, seen.median_ms) == (4, 1, 4, 2.5, 2.5)
    assert seen.percentiles == {25.0: 1.75, 50.0: 2.5, 90.0: pytest.approx(3.7)}
    assert seen.cov == pytest.approx(np.sqrt(1.25) / 2.5)
    assert Distribution.from_samples([2.0]).percentiles == {50.0: 2.0, 90.0: 2.0, 95.0: 2.0, 99.0: 2.0}
    with pytest.raises(DataError, match="--duration"):
        Distribution.from_samples([])
