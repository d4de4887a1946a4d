"""The operator in float64 once more, by matrices: nothing shared with the kernel's header.

RoIAlign is separable: rows [R, Hb] times bases times columns [Wb, R]; so is the attention's resize.
The keyword arguments of `masks` are deliberate mistakes, for showing that a comparison would notice them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.plugin.twins import Case


def masks(
    case: Case,
    shift: float = 0.0,
    aligned: bool | None = None,
    swap_xy: bool = False,
    softmax_axis: int = 0,
    softmax_first: bool = False,
    clip: bool = False,
    attention_order: str = "kyx",
    coordinates: Any = np.float64,
) -> Any:
    """float64 [N, D, R, R]; empty slots are 0. `coordinates` is the type that samples' places are computed in."""
    n, k, h, w = case.bases.shape
    m, r = case.attention_size, case.mask_size
    result = np.zeros((*case.boxes.shape[:2], r, r))
    shape = tuple({"k": k, "y": m, "x": m}[axis] for axis in attention_order)
    order = tuple(attention_order.index(axis) for axis in "kyx")
    resize = attention_matrix(m, r, case.nearest)
    aligned = case.aligned if aligned is None else aligned
    for image in range(n):
        bases = case.bases[image].astype(np.float64)
        for slot in range(max(0, min(case.filled[image], case.boxes.shape[1]))):
            x1, y1, x2, y2 = case.boxes[image, slot].astype(coordinates)
            if clip:
                limit = np.array([w, h, w, h]) / case.spatial_scale
                x1, y1, x2, y2 = np.clip([x1, y1, x2, y2], 0, limit)
            if swap_xy:
                x1, y1, x2, y2 = y1, x1, y2, x2
            rows = roi_matrix(sample_positions(y1, y2, case, aligned) + shift, h)
            columns = roi_matrix(sample_positions(x1, x2, case, aligned) + shift, w)
            values = rows @ bases @ columns.T
            attention = case.attention[image, slot].astype(np.float64).reshape(shape).transpose(order)
            if softmax_first:
                weights = resize @ softmax(attention, 0) @ resize.T
            else:
                weights = softmax(resize @ attention @ resize.T, softmax_axis)
            result[image, slot] = (weights * values).sum(axis=0)
            if case.sigmoid:
                result[image, slot] = 1 / (1 + np.exp(-result[image, slot]))
    return result


def sample_positions(low: Any, high: Any, case: Case, aligned: bool) -> Any:
    """[R, sampling ratio] in pixels of the bases, in the type of `low`; AdelaiDet's own where that is float32."""
    real = type(low)
    start, end = (v * real(np.float32(case.spatial_scale)) - real(0.5 if aligned else 0) for v in (low, high))
    cell = (end - start if aligned else max(end - start, real(1))) / real(case.mask_size)
    inside = (np.arange(case.sampling_ratio, dtype=real) + real(0.5)) * cell / real(case.sampling_ratio)
    return start + np.arange(case.mask_size, dtype=real)[:, None] * cell + inside


def roi_matrix(positions: Any, size: int) -> Any:
    """[R, size]: what every pixel weighs in every cell."""
    inside = (positions >= -1) & (positions <= size)
    distance = np.abs(np.clip(positions, 0, size - 1)[..., None] - np.arange(size))
    return (np.maximum(1 - distance, 0) * inside[..., None]).mean(axis=1)


def attention_matrix(m: int, r: int, nearest: bool) -> Any:
    if nearest:
        at = np.floor(np.arange(r, dtype=np.float32) * (np.float32(m) / np.float32(r)))  # float32 decides some floors
        return np.eye(m)[np.minimum(at, m - 1).astype(int)]
    centres = np.clip((np.arange(r) + 0.5) * m / r - 0.5, 0, m - 1)
    return np.maximum(1 - np.abs(centres[:, None] - np.arange(m)), 0)


def softmax(values: Any, axis: int) -> Any:
    exponents = np.exp(values - values.max(axis=axis, keepdims=True))
    return exponents / exponents.sum(axis=axis, keepdims=True)


def decided_by_rounding(case: Case, margin: float = 1e-4) -> Any:
    """bool [N, D, R, R]: a sample so near the cut-off at -1 or the size that rounding decides."""
    fragile = np.zeros((*case.boxes.shape[:2], case.mask_size, case.mask_size), bool)
    sizes = case.bases.shape[2:]
    for index in np.ndindex(case.boxes.shape[:2]):
        x1, y1, x2, y2 = case.boxes[index].astype(np.float64)
        near = []
        for low, high, size in ((y1, y2, sizes[0]), (x1, x2, sizes[1])):
            at = sample_positions(low, high, case, case.aligned)
            near.append((np.minimum(np.abs(at + 1), np.abs(at - size)) < margin).any(axis=1))
        fragile[index] = near[0][:, None] | near[1][None, :]
    return fragile
