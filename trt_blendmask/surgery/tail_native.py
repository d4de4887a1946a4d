"""The native tail: BlendMask's blender (arXiv 2001.00309, section 3.2; adet/modeling/blendmask/blender.py).

RoIAlign of the bases, attention brought from M x M to R x R, softmax over the K bases in every cell, weighted sum,
sigmoid, all in standard ops. Each base keeps planes of its own, so that sums over the bases run over whole planes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.roi_align import append_roi_align


def append_tail(
    graph: gs.Graph, bases: gs.Variable, boxes: Any, attention: Any, slots: int | None, spec: ModelSpec
) -> gs.Variable:
    """Append the masks of `boxes` float32 [N, D, 4] (input pixels, unclipped) with `attention` [N * D, K*M*M].

    Returns:
        float32 [N * D, R, R], probability, box-local.
    """
    return Builder(graph, "tail").op("Sigmoid", "masks", append_logits(graph, bases, boxes, attention, slots, spec))


def append_logits(
    graph: gs.Graph,
    bases: gs.Variable,
    boxes: Any,
    attention: Any,
    slots: int | None,
    spec: ModelSpec,
    image: Any = None,
) -> gs.Variable:
    """The same before the sigmoid; `slots` None and `image` as in `append_roi_align`."""
    rois = append_roi_align(graph, bases, boxes, slots, spec, image)
    b = Builder(graph, "tail")
    weights = _upsample(b, attention, spec)
    most = b.ops("Max", "most", weights, 1)[0]
    exponents = [b.op("Exp", f"exponent{k}", b.op("Sub", f"centred{k}", w, most)) for k, w in enumerate(weights)]
    weighted = [b.op("Mul", f"weighted{k}", e, roi) for k, (e, roi) in enumerate(zip(exponents, rois, strict=True))]
    logits = b.op("Div", "mask_logits", b.ops("Sum", "blended", weighted, 1)[0], b.ops("Sum", "total", exponents, 1)[0])
    return b.reshape("planes", logits, (-1, spec.mask_size, spec.mask_size))


def interpolation_matrix(m: int, r: int, mode: str) -> npt.NDArray[np.float32]:
    """float32 [M, R]: column i holds the weights of torch's interpolate (align_corners False) for output i.

    "nearest" takes floor(i * M / R); "bilinear" clamps at the border and does not smooth where M > R.
    """
    matrix = np.zeros((m, r), np.float32)
    scale = np.float32(m) / np.float32(r)  # torch computes in float32, which decides some floors
    for i in range(r):
        if mode == "nearest":
            matrix[min(int(np.floor(np.float32(i) * scale)), m - 1), i] = 1
            continue
        position = max((np.float32(i) + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0))
        low = int(position)
        matrix[low, i] += 1 - (position - low)
        matrix[min(low + 1, m - 1), i] += position - low
    return matrix


def _upsample(b: Builder, attention: Any, spec: ModelSpec) -> list[Any]:
    """[N * D, K*M*M] -> K tensors [1, N * D, R, R]: separable, so products with one small matrix."""
    k, m, r = spec.num_bases, spec.attention_size, spec.mask_size
    grid = b.reshape("attention_grid", attention, (-1, k, m, m))
    if m == r:
        return b.split("attention", b.transpose("attention_by_base", grid, (1, 0, 2, 3)), [1] * k, 0)
    matrix = b.constant("interpolation", interpolation_matrix(m, r, spec.attention_interpolation))
    columns = b.op("MatMul", "attention_columns", b.transpose("attention_by_base", grid, (1, 0, 3, 2)), matrix)
    parts = b.split("attention_rows", b.transpose("attention_turned", columns, (0, 1, 3, 2)), [1] * k, 0)
    return [b.op("MatMul", f"attention{base}", part, matrix) for base, part in enumerate(parts)]
