"""Class-wise greedy suppression in fixed shapes, exact: no NonMaxSuppression, no loop, no bound on chains of overlaps.

D times: take the best candidate that is still alive, and strike out all that overlap it too much. Only D candidates can
be kept, so only D of the n rows of the overlap table are ever needed, and none of it has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.selection import Candidates


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
    if threshold > 0:
        best, position = _survivors(b, candidates, threshold, steps)
    else:
        best, position = b.topk("best", candidates.scores, steps)
    valid = b.op("Greater", "valid", best, np.array(0, np.float32))
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


@dataclass(frozen=True)
class _Solids:
    """Boxes as solids of three axes x, y and class: [c, c + 1] on the third makes the overlap of two classes zero.

    Attributes:
        low, high: float32 [N, 3, n]. area: float32 [N, 1, n]. rows: float32 [N * n, 7], low, high and area of each.
    """

    low: Any
    high: Any
    area: Any
    rows: Any


def _solids(b: Builder, candidates: Candidates) -> _Solids:
    batch, n = candidates.batch, candidates.count
    corner, opposite = b.split("corners", candidates.boxes, [2, 2], 2)
    floor = b.reshape("floor", b.cast("class_number", candidates.classes, np.float32), (batch, n, 1))
    low = b.concat("low", [corner, floor], 2)
    high = b.concat("high", [opposite, b.op("Add", "ceiling", floor, np.array(1, np.float32))], 2)
    area = b.product("area", b.op("Sub", "extent", high, low), 2)
    rows = b.reshape("rows", b.concat("solids", [low, high, area], 2), (batch * n, 7))
    low, high, area = (
        b.transpose(f"{name}_planes", tensor, (0, 2, 1))
        for name, tensor in (("low", low), ("high", high), ("area", area))
    )
    return _Solids(low, high, area, rows)


def _survivors(b: Builder, candidates: Candidates, threshold: float, steps: int) -> tuple[Any, Any]:
    """The survivors' scores float32 [N, steps], 0 where there are no more, and their positions int64 [N, steps]."""
    batch, n = candidates.batch, candidates.count
    solids = _solids(b, candidates)
    limit, rank = b.constant("limit", np.array(just_above(threshold))), b.constant("rank", np.arange(n)[None])
    dead = b.constant("dead", np.array(0, np.float32))
    alive, best, position = candidates.scores, [], []
    for step in range(steps):
        first = b.op("ArgMax", f"first{step}", alive, attrs={"axis": 1, "keepdims": 1})  # of equals the first
        position.append(first)
        best.append(b.op("GatherElements", f"best{step}", alive, first, attrs={"axis": 1}))
        if step + 1 < steps:
            solid = b.reshape(f"solid{step}", b.take(f"taken{step}", solids.rows, first, batch, n), (batch, 7, 1))
            over = _overlaps(b, f"step{step}", solids, b.split(f"parts{step}", solid, [3, 3, 1], 1), limit)
            itself = b.op("Equal", f"itself{step}", rank, first)  # a box without area does not overlap even itself
            struck = b.op("Or", f"struck{step}", b.reshape(f"over{step}", over, (batch, n)), itself)
            alive = b.op("Where", f"alive{step}", struck, dead, alive)
    return b.concat("best", best, 1), b.concat("position", position, 1)


def _overlaps(b: Builder, name: str, all_: _Solids, one: list[Any], limit: Any) -> gs.Variable:
    """bool [N, 1, n]: the IoU with `one` (low, high [N, 3, 1], area [N, 1, 1]) exceeds `limit`."""
    low, high, area = one
    least, most = b.op("Min", f"{name}.least", all_.high, high), b.op("Max", f"{name}.most", all_.low, low)
    sides = b.op("Relu", f"{name}.sides", b.op("Sub", f"{name}.signed", least, most))
    inter = b.product(f"{name}.inter", sides, 1)
    union = b.op("Sub", f"{name}.union", b.op("Add", f"{name}.areas", all_.area, area), inter)
    return b.op("Greater", f"{name}.over", b.op("Div", f"{name}.iou", inter, union), limit)
