"""An observer: how often which value came, in a few kilobytes, however many values come."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 8192  # on each side of zero; with a width that doubles, at least half of them lie below the largest value
_CHUNK = 1 << 18  # values at a time: their bin numbers stay in the processor's cache
_LEAST = -110  # of the exponent: below it 2^-exponent would leave float32

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """What a histogram knows at its end.

    Attributes:
        width: of a bin, a power of two.
        positive, negative: int64 [BINS]; bin i holds the values from i * width to (i + 1) * width, and the same of the
            values below zero with their signs turned; the value 0 is in neither.
        zeros: how many values were exactly 0.
        low, high: the least and the largest value.
    """

    width: float
    positive: I64
    negative: I64
    zeros: int
    low: float
    high: float

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return max(self.high, -self.low, 0.0)

    @property
    def magnitudes(self) -> I64:
        """int64 [BINS]: positive and negative together."""
        return self.positive + self.negative


class Histogram:
    """Counts values in bins whose width doubles when a larger value comes.

    Widths are powers of two and bins begin at zero, so that doubling the width merges whole pairs of bins, and the
    width at the end depends on the largest value alone. Everything is an integer count: whatever the order of the
    values and however they were cut into pieces, equal values give an equal histogram, bit by bit.
    """

    def __init__(self) -> None:
        self.exponent = _LEAST
        self.counts = np.zeros(2 * BINS, np.int64)  # bin BINS + i: from i to i + 1 widths, for negative i, too
        self.zeros = 0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count `values` (float32, any shape).

        Raises:
            ValueError: some are NaN or infinite; nothing was counted.
        """
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN" if math.isnan(low) or math.isnan(high) else "infinite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(high, -low))
        # Exact, as the scale is a power of two; but a small value by a wide bin may be less than float32 has.
        kind = np.dtype(np.float64 if self.exponent > 0 else np.float32)
        scale = 2.0**-self.exponent
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK].astype(kind, copy=False)
            bins = np.floor(chunk * scale).astype(np.intp)
            self.counts += np.bincount(bins + BINS, minlength=2 * BINS)
            self.zeros += chunk.size - int(np.count_nonzero(chunk))

    def freeze(self) -> Counts:
        """The counts so far; a value on the border of a negative bin counts as the larger of the two magnitudes."""
        positive, negative = self.counts[BINS:].copy(), self.counts[BINS - 1 :: -1].copy()
        positive[0] -= self.zeros
        low, high = (self.low, self.high) if self.low <= self.high else (0.0, 0.0)
        return Counts(2.0**self.exponent, positive, negative, self.zeros, low, high)

    def _widen(self, peak: float) -> None:
        """Double the width until `peak` and `-peak` are inside."""
        wanted = max(_LEAST, math.frexp(peak)[1] - BINS.bit_length() + 1) if peak else _LEAST
        if not self.counts.any():
            self.exponent = max(self.exponent, wanted)
        while self.exponent < wanted:
            self._double()

    def _double(self) -> None:
        pairs = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts[:] = 0
        self.counts[BINS // 2 : BINS // 2 + BINS] = pairs
        self.exponent += 1
