"""RoIAlign of the bases in standard ops.

RoIAlign with a fixed number of samples per cell is bilinear on a grid along the axes, so it is two linear
interpolations one after the other: gather columns of the bases, then rows of the result. Out-of-range samples have
weight zero. ONNX Runtime's GridSample takes three to six times as long, and TensorRT-RTX cannot parse a RoiAlign
without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder


@dataclass(frozen=True)
class Taps:
    """What one axis reads: pairs of int64 indices and float32 weights, each [N * D, R]."""

    pairs: tuple[tuple[Any, Any], ...]


def append_roi_align(
    graph: gs.Graph, bases: gs.Variable, boxes: Any, slots: int | None, spec: ModelSpec, image: Any = None
) -> list[gs.Variable]:
    """Append RoIAlign of `bases` [N, K, Hb, Wb] in the unclipped `boxes` [N, D, 4] (input pixels).

    Where `slots` is None there are as many boxes as come, [n, 4], and with N > 1 int64 `image` [n] says whose each is.

    Semantics of detectron2's ROIAlign (V2 where `spec.aligned`): samples beyond -1 or the size are 0, those within
    a pixel of the border are clamped to it. A box that is not finite gives 0.

    Returns:
        K tensors float32 [N * D, R, R]: planes of one base fit a CPU's cache where those of all would not.
    """
    b = Builder(graph, "tail.roi")
    n, k, h, w = (int(side) for side in bases.shape)
    r, rois = spec.mask_size, -1 if slots is None else n * slots
    x1, y1, x2, y2 = b.split("corners", b.reshape("boxes", boxes, (rois, 4)), [1] * 4, 1)
    columns, rows = _taps(b, "x", x1, x2, w, spec), _taps(b, "y", y1, y2, h, spec)

    first_column, first_row = _open_starts(b, x1, image, h, w) if slots is None else _starts(n, slots, h, w)
    planes = []
    for base, plane in enumerate(b.split("planes", bases, [1] * k, 1)):
        by_column = b.reshape(f"{base}.columns", b.transpose(f"{base}.turned", plane, (0, 3, 1, 2)), (n * w, h))
        across = _interpolate(b, f"{base}.x", by_column, columns, first_column)  # [N * D, R, Hb]
        turned = b.transpose(f"{base}.across_turned", across, (0, 2, 1))
        by_row = b.reshape(f"{base}.rows", turned, (-1 if slots is None else rois * h, r))
        planes.append(_interpolate(b, f"{base}.y", by_row, rows, first_row))
    return planes


def _starts(n: int, slots: int, h: int, w: int) -> tuple[Any, Any]:
    """int64 [N * D, 1]: where the columns of each box's image begin (None: all at 0), and its own rows."""
    image, roi = (np.arange(count, dtype=np.int64).reshape(-1, 1) for count in (n, n * slots))
    return np.repeat(image * w, slots, axis=0) if n > 1 else None, roi * h


def _open_starts(b: Builder, x1: Any, image: Any, h: int, w: int) -> tuple[Any, Any]:
    """The same for a number of boxes that only the data say; `x1` float32 [n, 1]."""
    ones = b.op("Expand", "ones", np.array(1, np.int64), b.op("Shape", "boxes_shape", x1))  # [n, 1]
    numbers = b.op("CumSum", "numbers", ones, np.array(0, np.int64), attrs={"exclusive": 1})
    if image is not None:
        image = b.op("Mul", "first_column", b.reshape("image", image, (-1, 1)), np.array(w, np.int64))
    return image, b.op("Mul", "first_row", numbers, np.array(h, np.int64))


def _interpolate(b: Builder, axis: str, table: Any, taps: Taps, first: Any) -> gs.Variable:
    """Sum over the taps of weight * table[first + index]."""
    terms = []
    for i, (index, weight) in enumerate(taps.pairs):
        where = index if first is None else b.op("Add", f"{axis}.row{i}", index, first)
        values = b.gather(f"{axis}.values{i}", table, where)
        terms.append(
            b.op("Mul", f"{axis}.term{i}", values, b.op("Unsqueeze", f"{axis}.weight{i}", weight, np.array([-1])))
        )
    return b.op("Add" if len(terms) == 2 else "Sum", f"{axis}.sum", *terms)


def _taps(b: Builder, axis: str, low: Any, high: Any, size: int, spec: ModelSpec) -> Taps:
    """`low`, `high` [N * D, 1] in input pixels; `size` of the bases along the axis."""
    scale, shift = np.array(spec.spatial_scale, np.float32), np.array(0.5 if spec.aligned else 0.0, np.float32)
    start, end = (
        b.op("Sub", f"{axis}.{name}", b.op("Mul", f"{axis}.{name}_scaled", edge, scale), shift)
        for name, edge in (("start", low), ("end", high))
    )
    length = b.op("Sub", f"{axis}.length", end, start)
    if not spec.aligned:
        length = b.op("Max", f"{axis}.length_min", length, np.array(1, np.float32))
    cell = b.op("Div", f"{axis}.cell", length, np.array(spec.mask_size, np.float32))
    ramp = np.arange(spec.mask_size, dtype=np.float32).reshape(1, -1)
    corner = b.op("Add", f"{axis}.corner", b.op("Mul", f"{axis}.ramp", cell, ramp), start)
    pairs: list[tuple[Any, Any]] = []
    for sample in range(spec.sampling_ratio):
        inside = np.array((sample + 0.5) / spec.sampling_ratio, np.float32)
        position = b.op("Add", f"{axis}.at{sample}", corner, b.op("Mul", f"{axis}.in_cell{sample}", cell, inside))
        pairs += _linear(b, f"{axis}.{sample}", position, size, np.float32(1 / spec.sampling_ratio))
    return Taps(tuple(pairs))


def _linear(b: Builder, name: str, position: Any, size: int, share: np.float32) -> list[tuple[Any, Any]]:
    zero, last = np.array(0, np.float32), np.array(size - 1, np.float32)
    after = b.op("GreaterOrEqual", f"{name}.after", position, np.array(-1, np.float32))
    before = b.op("LessOrEqual", f"{name}.before", position, np.array(size, np.float32))
    inside = b.op("And", f"{name}.inside", after, before)  # False for NaN
    safe = b.op("Where", f"{name}.safe", inside, position, zero)
    clamped = b.op("Min", f"{name}.clamped", b.op("Max", f"{name}.positive", safe, zero), last)
    low = b.op("Floor", f"{name}.low", clamped)
    high = b.op("Min", f"{name}.high", b.op("Add", f"{name}.next", low, np.array(1, np.float32)), last)
    part = b.op("Sub", f"{name}.part", clamped, low)
    rest = b.op("Sub", f"{name}.rest", np.array(1, np.float32), part)
    if share != 1:
        part, rest = (b.op("Mul", f"{name}.{t}_share", x, np.array(share)) for t, x in (("part", part), ("rest", rest)))
    return [
        (b.cast(f"{name}.{t}_index", at, np.int64), b.op("Where", f"{name}.{t}_weight", inside, weight, zero))
        for t, at, weight in (("low", low, rest), ("high", high, part))
    ]
