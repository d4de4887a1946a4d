"""The five outputs of the deployable contract, with zeros (class -1) in the slots that are empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.nms import Kept


def append_outputs(graph: gs.Graph, kept: Kept, masks: Any, spec: ModelSpec) -> list[gs.Variable]:
    """Append and declare `count`, `boxes`, `scores`, `classes` and `masks`; `masks` comes as float32 [N * D, R, R]."""
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
    return [*(tensor for tensor, *_ in declared), append_masks(graph, kept.valid, masks, (n, d), spec)]


def append_masks(graph: gs.Graph, valid: Any, masks: Any, slots: tuple[int, int], spec: ModelSpec) -> gs.Variable:
    """Append and declare `masks` alone; `valid` is bool [N, D], `slots` N and D."""
    b, shape = Builder(graph, "outputs"), (*slots, spec.mask_size, spec.mask_size)
    masks = b.reshape("mask_slots", masks, shape)
    filled = b.reshape("valid_masks", valid, (*slots, 1, 1))
    masks = b.op("Where", "kept_masks", filled, masks, np.array(0, np.float32))
    if spec.mask_dtype == "uint8":
        masks = b.op("Round", "mask_steps", b.op("Mul", "mask_255", masks, np.array(255, np.float32)))
    if spec.mask_dtype != "float32":
        masks = b.cast("mask_cast", masks, spec.mask_dtype)
    masks.name, masks.dtype, masks.shape = "masks", np.dtype(spec.mask_dtype), shape
    return masks
