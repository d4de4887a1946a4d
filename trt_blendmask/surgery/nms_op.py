"""Suppression by ONNX's NonMaxSuppression: few nodes and quick in ONNX Runtime, but its output has as many rows as
there are survivors, which TensorRT-RTX does not build and a CUDA graph cannot hold.

The survivors are scattered back over the candidates, so shapes are fixed again from there on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.selection import Candidates


def survivors_by_op(
    b: Builder, candidates: Candidates, limit: np.float32, steps: int, num_classes: int
) -> tuple[Any, Any]:
    """Append suppression by IoU > `limit` within each class; the `steps` best.

    The op has a row of scores per class, so each candidate's score stands in the row of its class and 0 in the others.
    (Moving the boxes of each class to a place of their own would round their coordinates.) `steps` per class are
    enough: no class can have more of the best. ONNX says nothing of equal scores; ONNX Runtime takes the first first.

    Returns:
        Scores float32 [N, steps], 0 where there are no more survivors, and positions int64 [N, steps].
    """
    batch, n = candidates.batch, candidates.count
    numbers = np.arange(num_classes, dtype=np.int32).reshape(1, -1, 1)
    own = b.op("Equal", "own_class", b.reshape("class_row", candidates.classes, (batch, 1, n)), numbers)
    scores = b.reshape("score_row", candidates.scores, (batch, 1, n))
    by_class = b.op("Where", "scores_by_class", own, scores, np.array(0, np.float32))
    most, nothing = np.array([steps], np.int64), np.array([0], np.float32)
    rows = b.op("NonMaxSuppression", "selected", candidates.boxes, by_class, most, np.array([limit]), nothing)
    where = b.op("Gather", "selected_places", rows, np.array([0, 2], np.int64), attrs={"axis": 1})  # image, candidate
    kept = b.op("GatherND", "selected_scores", candidates.scores, where)
    alive = b.op("ScatterND", "survivors", np.zeros((batch, n), np.float32), where, kept)
    return b.topk("best", alive, steps)
