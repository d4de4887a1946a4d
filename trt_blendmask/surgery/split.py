"""The deployable graph in two halves, cut at the tensors of the blend: `F.trunk.onnx` and `F.tail.onnx`.

trunk: images -> count, boxes, scores, classes, bases [N, K, Hb, Wb], attention [N, D, K*M*M].
tail: bases, boxes, attention, count -> masks [N, D, R, R]; what a RoiAlignBlend plugin has to do.
Run one after the other they give what the whole gives, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.tail import Filled, append_masks


@dataclass(frozen=True)
class Blend:
    """What the tail of the whole graph reads: `bases` float32 [N, K, Hb, Wb], `attention` float32 [N * D, K*M*M]."""

    bases: gs.Variable
    attention: Any


def half_paths(output: Path) -> tuple[Path, Path]:
    """model.onnx -> model.trunk.onnx, model.tail.onnx."""
    trunk, tail = (output.with_name(f"{output.stem}.{half}{output.suffix or '.onnx'}") for half in ("trunk", "tail"))
    return trunk, tail


def split(whole: gs.Graph, blend: Blend, spec: ModelSpec) -> tuple[gs.Graph, gs.Graph]:
    """Trunk and tail of the `whole` graph, whose outputs become those of the trunk."""
    count, boxes, scores, classes, _ = whole.outputs
    n, d = boxes.shape[:2]
    channels = spec.num_bases * spec.attention_size**2
    attention = Builder(whole, "split").reshape("attention_slots", blend.attention, (n, d, channels))
    blend.bases.name, attention.name = "bases", "attention"
    attention.dtype, attention.shape = np.dtype(np.float32), (n, d, channels)
    whole.outputs = [count, boxes, scores, classes, blend.bases, attention]
    whole.cleanup().toposort()
    return whole, _tail(blend.bases, boxes, attention, count, spec)


def _tail(
    bases: gs.Variable, boxes: gs.Variable, attention: gs.Variable, count: gs.Variable, spec: ModelSpec
) -> gs.Graph:
    inputs = [gs.Variable(t.name, t.dtype, t.shape) for t in (bases, boxes, attention, count)]
    graph = gs.Graph(opset=17, inputs=inputs, name="blendmask_tail")
    bases, boxes, attention, count = inputs
    n, d, channels = attention.shape
    b = Builder(graph, "split")
    rows = b.reshape("attention_rows", attention, (n * d, channels))
    numbers = np.arange(d, dtype=np.int32)[None]
    valid = b.op("Less", "valid", numbers, b.reshape("count_column", count, (n, 1)))
    graph.outputs = [append_masks(graph, bases, boxes, rows, Filled(n, d, count, valid), spec)]
    graph.cleanup().toposort()
    return graph
