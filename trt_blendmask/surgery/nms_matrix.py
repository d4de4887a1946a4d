"""Suppression in fixed shapes: no NonMaxSuppression, no loop, nothing that depends on the data.

D times: take the best candidate that is still alive, and strike out all that its row of the IoU matrix says it
suppresses. Why this is greedy suppression, whatever the input: the best of those alive is suppressed by none of the
taken ones (it would be dead) and can be suppressed by no other (only better ones suppress), so it survives; and a
candidate dies only by a survivor. After D steps the D slots are full, or nothing is alive. So D of the n rows are all
that is ever needed, and none has to be stored.

Fewer steps would not do. "Cluster NMS" iterates on the whole n x n matrix and usually settles within a few rounds,
but a chain of boxes that each overlap the next one takes a round per survivor, so the bound on the rounds is D again,
each with n / D times the work. (Greedy suppression is the lexicographically first maximal independent set of a graph,
which is P-complete: no shallow circuit is known.)

A step is TopK of one and a run of elementwise ops on n values, which TensorRT-RTX fuses into one kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.selection import Candidates


def survivors_by_matrix(b: Builder, candidates: Candidates, limit: np.float32, steps: int) -> tuple[Any, Any]:
    """Append `steps` steps of suppression by IoU > `limit` within each class.

    Returns:
        Scores float32 [N, steps], 0 where there are no more survivors, and positions int64 [N, steps].
    """
    matrix = _Matrix(b, candidates, limit)
    dead = b.constant("dead", np.array(0, np.float32))
    alive, best, position = candidates.scores, [], []
    for step in range(steps):
        score, first = b.topk(f"first{step}", alive, 1)  # of equals the first
        best.append(score)
        position.append(first)
        if step + 1 < steps:
            alive = b.op("Where", f"alive{step}", matrix.row(f"row{step}", first), dead, alive)
    return b.concat("best", best, 1), b.concat("position", position, 1)


class _Matrix:
    """Who suppresses whom: rows are appended on demand."""

    def __init__(self, b: Builder, candidates: Candidates, limit: np.float32) -> None:
        batch, n = candidates.batch, candidates.count
        self._b, self._classes = b, candidates.classes
        self._limit, self._rank = b.constant("limit", np.array(limit)), b.constant("rank", np.arange(n)[None])
        planes = b.split("sides", b.transpose("sides_first", candidates.boxes, (2, 0, 1)), [1] * 4, 0)
        self._sides = [b.reshape(f"{s}s", plane, (batch, n)) for s, plane in zip("ltrb", planes, strict=True)]
        left, top, right, bottom = self._sides
        self._area = b.op("Mul", "area", b.op("Sub", "width", right, left), b.op("Sub", "height", bottom, top))

    def row(self, name: str, i: Any) -> Any:
        """bool [N, n]: what candidate `i` (int64 [N, 1]) suppresses, itself included."""
        b = self._b

        def op(kind: str, part: str, *inputs: Any) -> Any:
            return b.op(kind, f"{name}.{part}", *inputs)

        def of_i(part: str, values: Any) -> Any:
            return b.op("GatherElements", f"{name}.{part}", values, i, attrs={"axis": 1})

        left, top, right, bottom = self._sides
        x1, y1, x2, y2 = (of_i(f"side{k}", values) for k, values in enumerate(self._sides))
        width = op("Relu", "width", op("Sub", "dx", op("Min", "right", right, x2), op("Max", "left", left, x1)))
        height = op("Relu", "height", op("Sub", "dy", op("Min", "bottom", bottom, y2), op("Max", "top", top, y1)))
        inter = op("Mul", "inter", width, height)
        union = op("Sub", "union", op("Add", "areas", self._area, of_i("area", self._area)), inter)
        over = op("Greater", "over", op("Div", "iou", inter, union), self._limit)  # False for 0/0
        rival = op("And", "rival", over, op("Equal", "same_class", self._classes, of_i("class", self._classes)))
        itself = op("Equal", "itself", self._rank, i)  # a box without area does not overlap even itself
        return op("Or", "struck", rival, itself)
