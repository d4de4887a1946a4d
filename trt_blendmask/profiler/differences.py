"""From interleaved samples to differences that survive an argument.

Models take turns; a round is one turn of each. Drift and other processes hit the turns of a round alike, so models are
compared round by round: the median of a turn against the median of the other model's turn in the same round. The
estimate is the midmean (mean of the middle half) of the logarithms of these ratios, its interval a bootstrap over
blocks of neighbouring rounds, which keeps what is correlated together. What no difference at all would give (the noise)
is reckoned in the same way from pairs of turns of one and the same model. Two models differ where the estimate is
beyond the noise and its whole interval beyond the least difference that counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from trt_blendmask.profiler.report import Comparison, ModelProfile
from trt_blendmask.structures import F64

LEAST = 0.02  # relative differences below this are not reported as differences, however sure they are
CONFIDENCE = 0.95
MIN_ROUNDS = 8  # fewer say too little about how rounds scatter
_RESAMPLES = 1000


class Timed(Protocol):
    """What was timed: milliseconds of each kind, and of each the number of its round."""

    @property
    def times(self) -> Mapping[str, Sequence[float]]: ...

    @property
    def rounds(self) -> Mapping[str, Sequence[int]]: ...


def compare_times(one: ModelProfile, other: ModelProfile, metric: str) -> Comparison | None:
    """`other` against `one` by `times[metric]`; None where they share fewer than `MIN_ROUNDS` rounds."""
    ours, theirs = _turns(one, metric), _turns(other, metric)
    rounds = sorted(ours.keys() & theirs.keys())
    if len(rounds) < MIN_ROUNDS:
        return None
    logs = np.array([math.log(theirs[k] / ours[k]) for k in rounds])
    estimate = float(midmean(logs[None])[0])
    low, high = _interval(logs, estimate)
    noise = max(noise_of(model, metric) or 0.0 for model in (one, other))
    least = math.log1p(LEAST)
    differs = (low > least or high < -least) and abs(estimate) > math.log1p(noise)
    return Comparison(
        one.label,
        other.label,
        metric,
        math.exp(estimate),
        math.exp(low),
        math.exp(high),
        1 / (1 + noise),
        1 + noise,
        differs,
    )


def noise_of(model: Timed, metric: str) -> float | None:
    """The relative difference that comparing the model with itself would give here; None of too few rounds.

    Neighbouring turns make pairs; whichever of a pair comes first is chance, so the signs are drawn at random.
    """
    turns = _turns(model, metric)
    values = [turns[k] for k in sorted(turns)]
    if len(values) < MIN_ROUNDS:
        return None
    pairs = np.log(np.array(values[: len(values) // 2 * 2]).reshape(-1, 2))
    differences = pairs[:, 1] - pairs[:, 0]
    random = np.random.default_rng(0)
    drawn = random.choice(differences, (_RESAMPLES, len(values))) * random.choice(
        [-1.0, 1.0], (_RESAMPLES, len(values))
    )
    return math.expm1(float(np.quantile(np.abs(midmean(drawn)), CONFIDENCE)))


def midmean(rows: F64) -> F64:
    """Of each row [n, k] the mean of its middle half: nearly as sharp as the mean, and an outlier does not move it."""
    ordered, cut = np.sort(rows, axis=1), rows.shape[1] // 4
    return np.asarray(ordered[:, cut : rows.shape[1] - cut].mean(axis=1))


def _turns(model: Timed, metric: str) -> dict[int, float]:
    """The median of each turn, by its round."""
    samples: dict[int, list[float]] = {}
    for number, ms in zip(model.rounds.get(metric, ()), model.times.get(metric, ()), strict=False):
        samples.setdefault(number, []).append(ms)
    medians = {number: float(np.median(values)) for number, values in samples.items()}
    return {number: median for number, median in medians.items() if median > 0}


def _interval(values: F64, estimate: float) -> tuple[float, float]:
    """Of `estimate`, the midmean of `values`: a bootstrap over blocks of neighbours, which wrap round the end."""
    count = len(values)
    length = round(count ** (1 / 3))
    blocks = -(-count // length)
    starts = np.random.default_rng(0).integers(0, count, (_RESAMPLES, blocks, 1))
    places = (starts + np.arange(length)).reshape(_RESAMPLES, -1)[:, :count] % count
    rest = (1 - CONFIDENCE) / 2
    low, high = np.quantile(midmean(values[places]), (rest, 1 - rest))
    wider = 1 + 1.8 / (count - 1)  # of few values a bootstrap's interval is too narrow: Student's t, and n / (n - 1)
    return estimate - wider * max(0.0, estimate - float(low)), estimate + wider * max(0.0, float(high) - estimate)
