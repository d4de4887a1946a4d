"""From the histogram of an activation to the largest value that its INT8 grid shall represent.

The grid is TensorRT's: `q = clip(round(x / scale), -128, 127)` with scale = threshold / 127 and no zero point ("Working
with Quantized Types" in its developer guide; ONNX's QuantizeLinear to int8 is the same). Values above the threshold
become 127, those below -threshold get one step more, -128. One-sided data leaves the levels below zero unused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trt_blendmask.calibrate.histogram import I64, Counts
from trt_blendmask.structures import F64

PERCENTILE = 99.999  # of all absolute values
ENTROPY_BINS, ENTROPY_LEVELS = 2048, 128
IDLE = 1.0  # the threshold of a tensor that was zero throughout: TensorRT takes no scale of 0
NOTHING = 1e-35  # what is not above it counts as zero: its 127th part would not be a normal float32


def threshold(counts: Counts, method: str) -> float:
    """The threshold by `method`, one of `METHODS`; above 0, at most the largest absolute value (`IDLE` if that is 0).

    A float32, in nine digits.
    """
    peak = counts.peak
    if peak <= NOTHING:
        return IDLE
    if np.count_nonzero(counts.magnitudes) == 1:
        return _nine_digits(peak)  # constant: 127 steps are exactly it
    return _nine_digits(min(METHODS[method](counts), peak))


def _nine_digits(value: float) -> float:
    return float(f"{np.float32(value):.9g}")


def minmax(counts: Counts) -> float:
    """The largest absolute value: nothing is clipped."""
    return counts.peak


def percentile(counts: Counts) -> float:
    """Upper end of the first bin up to which lie `PERCENTILE` per cent of all absolute values, zeros included."""
    magnitudes = counts.magnitudes
    wanted = (counts.zeros + int(magnitudes.sum())) * (PERCENTILE / 100)
    covered = np.cumsum(magnitudes) + counts.zeros
    return float((np.searchsorted(covered, wanted) + 1) * counts.width)


def mse(counts: Counts) -> float:
    """The threshold with the least mean squared quantisation error.

    The error of every candidate is computed for all values, as if they lay evenly within their bins. It is not convex
    in the threshold, so the search is a scan: a coarse one over coarse bins, and finer ones about the four best.
    """
    peak, fine, coarse = counts.peak, _sides(counts, 1), _sides(counts, 4)
    step = 2.0 ** (1 / 16)
    bounds = (peak * step ** -np.arange(160.0)).tolist()  # down to a thousandth of the peak
    tried = {bound: _error(coarse, 4 * counts.width, bound) for bound in bounds}
    best: list[float] = sorted(tried, key=tried.__getitem__)[:4]
    tried = {peak: _error(fine, counts.width, peak)}
    for points in (16, 12):
        for near in best:
            for bound in np.minimum(near * np.geomspace(1 / step, step, points), peak).tolist():
                tried[bound] = _error(fine, counts.width, bound)
        best = sorted(tried, key=tried.__getitem__)[:4]
        step = step ** (2 / points)
    return best[0]


def squared_error(counts: Counts, bound: float) -> float:
    """Sum over all values of (x - quantised x)^2 for the threshold `bound`, values lying evenly within their bins."""
    return _error(_sides(counts, 1), counts.width, bound)


def _sides(counts: Counts, fold: int) -> list[tuple[I64, int]]:
    """The counts above and below zero in bins `fold` times as wide, up to the last that is not empty, and the number of
    levels on that side."""
    sides = []
    for bins, levels in ((counts.positive, 127), (counts.negative, 128)):
        wide = bins.reshape(-1, fold).sum(axis=1)
        if wide.any():
            sides.append((wide[: int(np.flatnonzero(wide)[-1]) + 1], levels))
    return sides


def _error(sides: list[tuple[I64, int]], width: float, bound: float) -> float:
    scale = bound / 127
    total = 0.0
    for bins, levels in sides:
        edges = np.arange(len(bins) + 1) * (width / scale)
        level = np.minimum(np.rint(edges), levels)
        off = edges - level
        integral = level / 12 + off * off * off / 3  # of (t - its level)^2 from 0 to the edge
        total += float(bins @ np.diff(integral))
    return total * scale**3 / width


def entropy(counts: Counts) -> float:
    """The threshold whose 128 levels keep most of the distribution's information.

    Of the absolute values (TensorRT's original calibration; Migacz, "8-bit Inference with TensorRT", GTC 2017): for
    each i from 128 to 2048 bins, P is the distribution up to bin i with all that lies above in bin i, Q the same
    without what lies above, averaged over 128 levels; the i with the least divergence of Q from P. Exact zeros, half of
    what a ReLU writes, are the same in any grid and are left out.
    """
    magnitudes = counts.magnitudes
    last = int(np.flatnonzero(magnitudes)[-1]) + 1
    fold = -(-last // ENTROPY_BINS)
    whole = np.zeros(fold * -(-last // fold), np.float64)
    whole[:last] = magnitudes[:last]
    hist = whole.reshape(-1, fold).sum(axis=1)
    ends = range(min(ENTROPY_LEVELS, len(hist)), len(hist) + 1)
    best = min(ends, key=lambda end: (_divergence(hist, end), -end))
    return best * fold * counts.width


def _divergence(hist: F64, end: int) -> float:
    """Kullback-Leibler divergence of the quantised from the clipped distribution, if `end` bins are kept."""
    kept = hist[:end]
    starts = -(-np.arange(min(ENTROPY_LEVELS, end)) * end // min(ENTROPY_LEVELS, end))  # each level's first bin
    filled = kept > 0
    sums, used = np.add.reduceat(kept, starts), np.add.reduceat(filled.astype(np.float64), starts)
    means = np.divide(sums, used, out=np.zeros_like(sums), where=used > 0)
    q = np.repeat(means, np.diff(starts, append=end)) * filled
    p = kept.copy()
    p[-1] += hist[end:].sum()
    if p[-1] > 0 and q[-1] == 0:  # the outliers would fall where nothing is: no information about them is left
        return np.inf
    at = p > 0
    total_p, total_q = p.sum(), q.sum()
    return float((p[at] * np.log((p[at] / total_p) / (q[at] / total_q))).sum() / total_p)


METHODS: dict[str, Callable[[Counts], float]] = {
    "mse": mse,
    "percentile": percentile,
    "entropy": entropy,
    "minmax": minmax,
}
