"""AdelaiDet's selection and blender once more: plain loops in float64, nothing shared with the graph.

The keyword arguments are deliberate mistakes, for showing that the comparisons would notice them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trt_blendmask.structures import ModelSpec


def sigmoid(x: float) -> float:
    if math.isnan(x):
        return x
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def select(
    levels: list[dict[str, Any]],
    strides: list[int],
    n: int,
    spec: ModelSpec,
    sqrt_first: bool = False,
    inclusive: bool = False,
    clip: tuple[int, int] | None = None,
    across_classes: bool = False,
) -> list[tuple[float, int, int, list[float]]]:
    """(score, class, location, xyxy) of the detections of image `n`, in order."""
    found: list[tuple[float, int, int, list[float]]] = []
    first = 0
    for level, stride in zip(levels, strides, strict=True):
        logits, reg, ctr = (np.asarray(level[k], np.float64)[n] for k in ("logits", "reg", "ctr"))
        classes, h, w = logits.shape
        here: list[tuple[float, tuple[float, int, int, list[float]]]] = []
        for y in range(h):
            for x in range(w):
                cx, cy = x * stride + stride // 2, y * stride + stride // 2
                left, top, right, bottom = (float(v) * stride for v in reg[:, y, x])
                box = [cx - left, cy - top, cx + right, cy + bottom]
                if clip is not None:
                    box = [min(max(v, 0), clip[1 - i % 2]) for i, v in enumerate(box)]
                for c in range(classes):
                    p, q = sigmoid(logits[c, y, x]), sigmoid(ctr[0, y, x])
                    tested = p * q if spec.thresh_with_ctr else p
                    tested = math.sqrt(tested) if sqrt_first else tested
                    if tested > spec.score_threshold or (inclusive and tested == spec.score_threshold):
                        here.append((p * q, (math.sqrt(p * q), c, first + y * w + x, box)))
        here.sort(key=lambda item: -item[0])  # stable
        found += [candidate for _, candidate in here[: spec.pre_nms_topk]]
        first += h * w
    found.sort(key=lambda item: (-item[0], item[2], item[1]))
    kept: list[tuple[float, int, int, list[float]]] = []
    for candidate in found:
        rivals = [k for k in kept if across_classes or k[1] == candidate[1]]
        if spec.nms_threshold <= 0 or not any(iou(k[3], candidate[3]) > spec.nms_threshold for k in rivals):
            kept.append(candidate)
    return kept[: spec.max_detections]


def iou(a: list[float], b: list[float]) -> float:
    """A float32, as torchvision's; NaN for 0/0."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return float(np.float32(inter / union)) if union else math.nan


def blend(
    bases: Any,
    box: Any,
    attention: Any,
    spec: ModelSpec,
    shift: float = 0.0,
    swap_xy: bool = False,
    softmax_over: str = "bases",
    clip: tuple[int, int] | None = None,
) -> np.ndarray:
    """Mask float64 [R, R] of one `box` on `bases` [K, Hb, Wb] with `attention` [K*M*M]."""
    k, r, m = spec.num_bases, spec.mask_size, spec.attention_size
    x1, y1, x2, y2 = (float(v) for v in box)
    if clip is not None:
        x1, x2, y1, y2 = (
            min(max(v, 0.0), float(s)) for v, s in ((x1, clip[1]), (x2, clip[1]), (y1, clip[0]), (y2, clip[0]))
        )
    if swap_xy:
        x1, y1, x2, y2 = y1, x1, y2, x2
    rois = np.array(
        [[[_cell(bases[b], (x1, y1, x2, y2), i, j, spec, shift) for j in range(r)] for i in range(r)] for b in range(k)]
    )
    grid = np.asarray(attention, np.float64).reshape(k, m, m)
    weights = np.array([[[_interpolated(grid[b], i, j, spec) for j in range(r)] for i in range(r)] for b in range(k)])
    axis = {"bases": 0, "rows": 1, "columns": 2}[softmax_over]
    exponent = np.exp(weights - weights.max(axis=axis, keepdims=True))
    logits = (rois * exponent / exponent.sum(axis=axis, keepdims=True)).sum(axis=0)
    return 1 / (1 + np.exp(-logits))


def _cell(plane: Any, box: tuple[float, ...], i: int, j: int, spec: ModelSpec, shift: float) -> float:
    half = 0.5 if spec.aligned else 0.0
    x1, y1, x2, y2 = (v * spec.spatial_scale - half + shift for v in box)
    w, h = x2 - x1, y2 - y1
    if not spec.aligned:
        w, h = max(w, 1.0), max(h, 1.0)
    s, r, total = spec.sampling_ratio, spec.mask_size, 0.0
    for a in range(s):
        for b in range(s):
            total += _sample(plane, y1 + (i + (a + 0.5) / s) * h / r, x1 + (j + (b + 0.5) / s) * w / r)
    return total / (s * s)


def _sample(plane: Any, y: float, x: float) -> float:
    h, w = plane.shape
    if y < -1 or y > h or x < -1 or x > w:
        return 0.0
    y, x = min(max(y, 0.0), h - 1.0), min(max(x, 0.0), w - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    fy, fx = y - y0, x - x0
    top = plane[y0, x0] * (1 - fx) + plane[y0, x1] * fx
    return float(top * (1 - fy) + (plane[y1, x0] * (1 - fx) + plane[y1, x1] * fx) * fy)


def _interpolated(grid: Any, i: int, j: int, spec: ModelSpec) -> float:
    m, r = spec.attention_size, spec.mask_size
    if spec.attention_interpolation == "nearest":
        return float(grid[i * m // r, j * m // r])
    y, x = (max((v + 0.5) * m / r - 0.5, 0.0) for v in (i, j))
    return _sample(grid, y, x)
