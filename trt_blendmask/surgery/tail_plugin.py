"""The plugin tails: the blender as one node, `RoiAlignBlend`, which libtrt_blendmask.so teaches TensorRT, or
`RoiAlignBlendAot`, whose kernel `trt_blendmask.aot` compiles into the engine.

Same numbers as the native tail. The slots from `count` on are left empty by the node itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.aot import NAME as AOT_OP_TYPE
from trt_blendmask.aot import encode
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.outputs import to_uint8

OP_TYPE = "RoiAlignBlend"


def append_plugin_masks(
    graph: gs.Graph, bases: Any, boxes: Any, attention: Any, count: Any, slots: tuple[int, int], spec: ModelSpec
) -> gs.Variable:
    """Append and declare `masks`; the node is the one that `spec.tail` says, "plugin" or "aot".

    Args:
        bases: float32 or float16 [N, K, Hb, Wb]. boxes: float32 [N, D, 4], input pixels, unclipped.
        attention: [N * D, K*M*M]. count: int32 [N]. slots: N and D.

    Returns:
        `masks` [N, D, R, R] of the spec's `mask_dtype`, probability (round(255 * p) for uint8), box-local.
    """
    b = Builder(graph, "tail")
    # TensorRT takes no uint8 from a plugin, and as an output of the network only from a cast.
    dtype = "float32" if spec.mask_dtype == "uint8" else spec.mask_dtype
    rows = b.reshape("attention_slots", attention, (*slots, spec.num_bases * spec.attention_size**2))
    shape = (*slots, spec.mask_size, spec.mask_size)
    masks = gs.Variable("tail.masks", np.dtype(dtype), shape)
    attributes, inputs = _attributes(spec, dtype), [bases, boxes, rows, count]
    op_type, attributes = (AOT_OP_TYPE, encode(attributes)) if spec.tail == "aot" else (OP_TYPE, attributes)
    graph.nodes.append(gs.Node(op_type, "tail.blend", attributes, inputs, [masks], domain=PLUGIN_DOMAIN))
    if spec.mask_dtype == "uint8":
        masks = to_uint8(b, masks)
    masks.name, masks.dtype, masks.shape = "masks", np.dtype(spec.mask_dtype), shape
    return masks


def _attributes(spec: ModelSpec, dtype: str) -> dict[str, Any]:
    """The plugin's fields; the last two are for TensorRT's parser, which finds the plugin by them."""
    return {
        "mask_size": spec.mask_size,
        "attention_size": spec.attention_size,
        "spatial_scale": float(spec.spatial_scale),
        "sampling_ratio": spec.sampling_ratio,
        "aligned": int(spec.aligned),
        "attention_interpolation": spec.attention_interpolation,
        "activation": "sigmoid",
        "mask_dtype": dtype,
        "plugin_version": "1",
        "plugin_namespace": PLUGIN_DOMAIN,
    }
