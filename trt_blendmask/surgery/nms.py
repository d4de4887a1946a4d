"""Class-wise greedy suppression of the candidates, exact for every input, into D slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.nms_matrix import survivors_by_matrix
from trt_blendmask.surgery.nms_op import survivors_by_op
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


def append_nms(graph: gs.Graph, candidates: Candidates, spec: ModelSpec) -> Kept:
    """Append suppression by IoU > `spec.nms_threshold` on unclipped boxes; none where it is <= 0.

    As in torchvision's nms the IoU is a float32 compared with the double threshold, so an IoU of exactly
    float32(0.6) is suppressed by 0.6; 0/0 never is. `spec.nms` chooses the form, "matrix" or "op", not the result.
    """
    b = Builder(graph, "nms")
    batch, n, slots = candidates.batch, candidates.count, spec.max_detections
    steps = min(slots, n)
    if spec.nms_threshold <= 0:
        best, position = b.topk("best", candidates.scores, steps)
    elif spec.nms == "op":
        best, position = survivors_by_op(b, candidates, just_above(spec.nms_threshold), steps, spec.num_classes)
    else:
        best, position = survivors_by_matrix(b, candidates, just_above(spec.nms_threshold), steps)
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
