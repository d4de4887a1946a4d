"""The blender behind the detections, by any of its interchangeable forms, which give the same masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.errors import UsageError
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.outputs import to_uint8
from trt_blendmask.surgery.tail_native import append_tail
from trt_blendmask.surgery.tail_plugin import append_plugin_masks


@dataclass(frozen=True)
class Filled:
    """Which slots hold detections: `count` int32 [N] of them come first, `valid` bool [N, D]."""

    batch: int
    slots: int
    count: Any
    valid: Any


def append_masks(
    graph: gs.Graph, bases: gs.Variable, boxes: Any, attention: Any, filled: Filled, spec: ModelSpec
) -> gs.Variable:
    """Append and declare `masks` [N, D, R, R], `spec.mask_dtype`, probability, box-local, 0 in empty slots.

    Args:
        bases: float32 [N, K, Hb, Wb]. boxes: float32 [N, D, 4] xyxy in input pixels, not clipped.
        attention: float32 [N * D, K*M*M].

    Raises:
        UsageError: no plugin can blend so.
    """
    if spec.tail != "native":
        _check_plugin(spec)
        return append_plugin_masks(graph, bases, boxes, attention, filled.count, (filled.batch, filled.slots), spec)
    b, shape = Builder(graph, "outputs"), (filled.batch, filled.slots, spec.mask_size, spec.mask_size)
    masks = b.reshape("mask_slots", append_tail(graph, bases, boxes, attention, filled.slots, spec), shape)
    valid = b.reshape("valid_masks", filled.valid, (filled.batch, filled.slots, 1, 1))
    masks = b.op("Where", "kept_masks", valid, masks, np.array(0, np.float32))
    if spec.mask_dtype == "uint8":
        masks = to_uint8(b, masks)
    elif spec.mask_dtype != "float32":
        masks = b.cast("mask_cast", masks, spec.mask_dtype)
    masks.name, masks.dtype, masks.shape = "masks", np.dtype(spec.mask_dtype), shape
    return masks


def _check_plugin(spec: ModelSpec) -> None:
    """Bounds of the plugin's kernel (plugins/roi_align_blend_kernel.cu)."""
    for what, value, most in (
        ("samples per cell and axis", spec.sampling_ratio, 2),
        ("bases (K)", spec.num_bases, 1024),
        ("attention size (M)", spec.attention_size, 256),
        ("mask size (R)", spec.mask_size, 256),
    ):
        if value > most:
            raise UsageError(f"The plugin takes at most {most} {what}, and this model has {value}: pass --tail native.")
