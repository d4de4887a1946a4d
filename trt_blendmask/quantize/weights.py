"""INT8 weights: per output channel, symmetric, zero point 0, codes -127..127."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_blendmask.structures import F32

I8 = npt.NDArray[np.int8]

CODES = 127
GAIN = 0.01  # a smaller threshold than the largest weight must lessen the squared error by this part
FRACTIONS = np.arange(0.98, 0.2, -0.02, dtype=np.float32)
SMALLEST = 2.0**-19  # half precision's smaller numbers have next to no digits


@dataclass(frozen=True)
class QuantisedWeight:
    """Weights [O, ...] as int8 codes and float32 [O] scales."""

    codes: I8
    scales: F32

    @property
    def values(self) -> F32:
        """What they stand for."""
        return np.asarray(self.codes * self.scales.reshape(-1, *[1] * (self.codes.ndim - 1)), np.float32)


def quantise_weight(weight: F32) -> QuantisedWeight:
    """Weights float32 [O, ...] in INT8.

    A scale is the channel's largest absolute value by 127, or a smaller one where clipping the largest weights lessens
    the squared error by more than 1 %. Half precision holds it exactly.
    """
    rows = np.ascontiguousarray(weight, np.float32).reshape(len(weight), -1)
    scales = _searched(rows, np.abs(rows).max(axis=1, initial=0.0))
    return QuantisedWeight(_codes(rows, scales).astype(np.int8).reshape(weight.shape), scales)


def half_scale(scale: npt.ArrayLike) -> F32:
    """The nearest scale that half precision holds exactly, at least `SMALLEST`."""
    clipped = np.clip(np.asarray(scale, np.float32), SMALLEST, float(np.finfo(np.float16).max))
    return np.asarray(clipped.astype(np.float16), np.float32)


def _codes(rows: F32, scales: F32) -> F32:
    return np.asarray(np.clip(np.rint(rows / scales[:, None]), -CODES, CODES), np.float32)


def _error(rows: F32, scales: F32) -> F32:
    difference = _codes(rows, scales)
    difference *= scales[:, None]
    difference -= rows
    return np.asarray(np.einsum("ij,ij->i", difference, difference), np.float32)


def _searched(rows: F32, largest: F32) -> F32:
    best = half_scale(largest / CODES)
    least = _error(rows, best) * np.float32(1 - GAIN)
    for fraction in FRACTIONS:
        tried = np.flatnonzero(((1 - fraction) * largest) ** 2 < least)  # what clipping the largest weight alone costs
        trial = half_scale(largest[tried] * fraction / CODES)
        error = _error(rows[tried], trial)
        better = tried[error < least[tried]]
        best[better], least[better] = trial[error < least[tried]], error[error < least[tried]]
    return best
