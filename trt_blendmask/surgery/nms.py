"""Class-wise greedy suppression in fixed shapes, exact: no NonMaxSuppression, no loop, no bound on chains of overlaps.

One n x n table says which candidate suppresses which. Then D times: take the first candidate that is still alive, and
strike out its row. Each step is a minimum, a gathered row and a select, so 100 of them cost little next to the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.selection import Candidates

BLOCK = 250  # rows of the table made at once


@dataclass(frozen=True)
class Kept:
    """The D best survivors, scores descending. Where `valid` is False the other tensors hold some candidate's values.

    Attributes:
        valid: bool [N, D]. boxes: float32 [N, D, 4] xyxy in input pixels, not clipped. scores: float32 [N, D].
        classes: int32 [N, D]. locations: int64 [N, D].
    """

    batch: int
    slots: int
    valid: Any
    boxes: Any
    scores: Any
    classes: Any
    locations: Any


def append_nms(graph: gs.Graph, candidates: Candidates, threshold: float, slots: int) -> Kept:
    """Append greedy class-wise suppression by IoU > `threshold` on unclipped boxes; none where it is <= 0.

    As in torchvision's nms the IoU is a float32 compared with the double `threshold`, so an IoU of exactly
    float32(0.6) is suppressed by 0.6; 0/0 never is.
    """
    b = Builder(graph, "nms")
    batch, n = candidates.batch, candidates.count
    steps = min(slots, n)
    present = b.op("Greater", "present", candidates.scores, np.array(0, np.float32))
    if threshold > 0:
        valid, position = _survivors(b, candidates, present, threshold, steps)
    else:
        span = np.tile(np.arange(steps, dtype=np.int64), (batch, 1))
        flat = b.reshape("present_rows", present, (batch * n,))
        valid, position = b.take("valid", flat, span, batch, n), b.constant("position", span)
    if steps < slots:
        rest = (batch, slots - steps)
        valid = b.concat("valid_slots", [valid, b.constant("no", np.zeros(rest, np.bool_))], 1)
        position = b.concat("position_slots", [position, b.constant("first", np.zeros(rest, np.int64))], 1)

    def rows(name: str, tensor: Any, tail: tuple[int, ...] = ()) -> gs.Variable:
        return b.take(name, b.reshape(f"{name}.rows", tensor, (batch * n, *tail)), position, batch, n)

    boxes, scores = rows("boxes", candidates.boxes, (4,)), rows("scores", candidates.scores)
    classes, locations = rows("classes", candidates.classes), rows("locations", candidates.locations)
    return Kept(batch, slots, valid, boxes, scores, classes, locations)


def just_above(threshold: float) -> np.float32:
    """The largest float32 x for which `y > x` says, for every float32 y, what `double(y) > threshold` says."""
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(-np.inf))


def _survivors(b: Builder, candidates: Candidates, present: Any, threshold: float, steps: int) -> tuple[Any, Any]:
    """bool [N, steps] and int64 positions [N, steps] of the survivors, in order."""
    batch, n = candidates.batch, candidates.count
    table = _suppression_table(b, candidates, threshold)
    rank = np.arange(n, dtype=np.float32).reshape(1, n)
    gone, last = b.constant("gone", np.array(n, np.float32)), b.constant("last", np.array(n - 1, np.float32))
    alive: Any = b.reshape("alive", b.op("Where", "ranks", present, rank, gone), (batch, 1, n))
    firsts = []
    for step in range(steps):
        first = b.reduce_min(f"first{step}", alive, 2)  # n when nobody is left
        firsts.append(first)
        if step + 1 < steps:
            index = b.cast(f"row{step}", b.op("Min", f"bounded{step}", first, last), np.int64)
            struck = b.take(f"struck{step}", table, index, batch, n)
            alive = b.op("Where", f"alive{step}", struck, gone, alive)
    order = b.concat("order", firsts, 1)
    valid = b.op("Less", "valid", order, gone)
    return valid, b.cast("position", b.op("Min", "bounded", order, last), np.int64)


def _suppression_table(b: Builder, candidates: Candidates, threshold: float) -> Any:
    """bool [N * n, n]: candidate i strikes out candidate j > i of its class, and itself.

    Made in blocks of rows, each from its own first column on: what stands left of it is decided already when its
    rows are used, and a block that fits the cache takes half the time.
    """
    batch, n = candidates.batch, candidates.count
    table = []
    by_row = b.transpose("boxes_by_corner", candidates.boxes, (0, 2, 1))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        name = f"block{start // BLOCK}"
        low, high, end = (np.array([edge], np.int64) for edge in (start, stop, n))
        boxes = b.op("Slice", f"{name}.boxes", candidates.boxes, low, high, np.array([1]))
        others = b.op("Slice", f"{name}.others", by_row, low, end, np.array([2]))
        over = _overlaps(
            b, name, b.split(f"{name}.col", boxes, [1] * 4, 2), b.split(f"{name}.row", others, [1] * 4, 1), threshold
        )
        mine = b.op("Slice", f"{name}.classes", candidates.classes, low, high, np.array([1]))
        theirs = b.op("Slice", f"{name}.other_classes", candidates.classes, low, end, np.array([1]))
        same = b.op(
            "Equal",
            f"{name}.same_class",
            b.reshape(f"{name}.class_col", mine, (batch, stop - start, 1)),
            b.reshape(f"{name}.class_row", theirs, (batch, 1, n - start)),
        )
        index = np.arange(start, n, dtype=np.int32)  # runtimes fold what follows; the file stays small
        itself = b.op("Equal", f"{name}.itself", index[: stop - start].reshape(1, -1, 1), index.reshape(1, 1, -1))
        rows = b.op("Or", f"{name}.strikes", b.op("And", f"{name}.over_same", over, same), itself)
        if start:
            left = b.op("Expand", f"{name}.left", np.array(False), np.array([batch, stop - start, start]))
            rows = b.concat(f"{name}.rows", [left, rows], 2)
        table.append(rows)
    return b.reshape("table", b.concat("blocks", table, 1), (batch * n, n))


def _overlaps(b: Builder, name: str, columns: list[Any], rows: list[Any], threshold: float) -> gs.Variable:
    """bool [N, i, j]: IoU above the threshold of boxes given by x1, y1, x2, y2 as [N, i, 1] and [N, 1, j]."""

    def overlap(axis: str, low: int) -> gs.Variable:
        least = b.op("Min", f"{name}.{axis}.least", columns[low + 2], rows[low + 2])
        return b.op("Sub", f"{name}.{axis}", least, b.op("Max", f"{name}.{axis}.most", columns[low], rows[low]))

    def area(side: str, corners: list[Any]) -> gs.Variable:
        width, height = (b.op("Sub", f"{name}.{side}.{a}", corners[i + 2], corners[i]) for i, a in enumerate("wh"))
        return b.op("Mul", f"{name}.{side}.area", width, height)

    # A negative height may stay: with a positive width it gives a negative IoU, which suppresses nothing either.
    width = b.op("Relu", f"{name}.width", overlap("x", 0))
    inter = b.op("Mul", f"{name}.inter", width, overlap("y", 1))
    areas = b.op("Add", f"{name}.areas", area("mine", columns), area("theirs", rows))
    iou = b.op("Div", f"{name}.iou", inter, b.op("Sub", f"{name}.union", areas, inter))
    return b.op("Greater", f"{name}.over", iou, np.array(just_above(threshold)))
