"""The outputs of the deployable contract but the masks, with zeros (class -1) in the slots that are empty."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.nms import Kept


def to_uint8(b: Builder, masks: gs.Variable) -> gs.Variable:
    """round(255 * p)."""
    steps = b.op("Round", "mask_steps", b.op("Mul", "mask_255", masks, np.array(255, np.float32)))
    return b.cast("mask_cast", steps, np.uint8)


def append_detections(graph: gs.Graph, kept: Kept) -> list[gs.Variable]:
    """Append and declare `count`, `boxes`, `scores` and `classes`."""
    b = Builder(graph, "outputs")
    n, d = kept.batch, kept.slots
    zero = b.constant("zero", np.array(0, np.float32))
    count = b.op("ReduceSum", "total", b.cast("ones", kept.valid, np.int32), np.array([1]), attrs={"keepdims": 0})
    boxes = b.op("Where", "kept_boxes", b.reshape("valid_boxes", kept.valid, (n, d, 1)), kept.boxes, zero)
    scores = b.op("Where", "kept_scores", kept.valid, kept.scores, zero)
    classes = b.op("Where", "kept_classes", kept.valid, kept.classes, np.array(-1, np.int32))
    declared = (
        (count, "count", "int32", (n,)),
        (boxes, "boxes", "float32", (n, d, 4)),
        (scores, "scores", "float32", (n, d)),
        (classes, "classes", "int32", (n, d)),
    )
    for tensor, name, dtype, shape in declared:
        tensor.name, tensor.dtype, tensor.shape = name, np.dtype(dtype), shape
    return [tensor for tensor, *_ in declared]
