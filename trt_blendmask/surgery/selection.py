"""Candidates: decode, threshold and top-k of AdelaiDet's FCOS (adet/modeling/fcos/fcos_outputs.py), in fixed shapes.

A candidate is a pair (location, class). Pairs are numbered level by level, then location by location, then class by
class, which is the order torch lists them in; of equal scores the lower number comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Array, Builder
from trt_blendmask.surgery.reading.raw_head import RawHead


@dataclass(frozen=True)
class Candidates:
    """The best pairs of each level; score 0 marks one that did not pass. Of equal scores the first counts as better.

    Attributes:
        count: n, per image. boxes: float32 [N, n, 4] xyxy in input pixels, not clipped. scores: float32 [N, n].
        classes: int32 [N, n]. locations: int64 [N, n], numbers of 0 ... L - 1.
    """

    batch: int
    count: int
    boxes: Any
    scores: Any
    classes: Any
    locations: Any


def append_selection(graph: gs.Graph, head: RawHead, spec: ModelSpec) -> Candidates:
    """Append the choice of candidates by `score_threshold`, `thresh_with_ctr` and, per level, `pre_nms_topk`."""
    b = Builder(graph, "selection")
    pairs = [level.locations * head.num_classes for level in head.levels]
    values, numbers = [], []
    for i, part in enumerate(b.split("by_level", _qualities(b, head, spec), pairs, 1)):
        value, number = _best_of_level(b, i, part, pairs[i], sum(pairs[:i]), head.batch, spec.pre_nms_topk)
        values.append(value)
        numbers.append(number)
    scores, pair = b.op("Sqrt", "scores", b.concat("best_quality", values, 1)), b.concat("pair", numbers, 1)
    c = np.array(head.num_classes, np.int64)
    locations = b.op("Div", "locations", pair, c)
    classes = b.cast("classes", b.op("Sub", "classes64", pair, b.op("Mul", "first_pairs", locations, c)), np.int32)
    boxes = b.take("boxes", _boxes(b, head), locations, head.batch, head.locations)
    count = sum(min(p, spec.pre_nms_topk) for p in pairs)
    return Candidates(head.batch, count, boxes, scores, classes, locations)


def _qualities(b: Builder, head: RawHead, spec: ModelSpec) -> Any:
    """float32 [N, pairs]: class probability times centerness, 0 where the pair does not pass the threshold."""
    n, c = head.batch, head.num_classes
    logits = [b.reshape(f"logits{lv.number}", lv.logits, (n, c, lv.locations)) for lv in head.levels]
    by_pair = b.transpose("logits", b.concat("logits_chw", logits, 2), (0, 2, 1))
    centerness = [b.reshape(f"centerness{lv.number}", lv.centerness, (n, lv.locations, 1)) for lv in head.levels]
    p = b.op("Sigmoid", "probabilities", by_pair)
    quality = b.op("Mul", "quality", p, b.op("Sigmoid", "centered", b.concat("centerness", centerness, 1)))
    tested = quality if spec.thresh_with_ctr else p
    # torch compares a float32 tensor with the float32 nearest to the Python number
    passes = b.op("Greater", "passes", tested, np.array(spec.score_threshold, np.float32))
    kept = b.op("Where", "kept", passes, quality, np.array(0, np.float32))
    return b.reshape("pairs", kept, (n, head.locations * c))


def _best_of_level(
    b: Builder, i: int, qualities: Any, pairs: int, first: int, batch: int, topk: int
) -> tuple[Any, Any]:
    """Qualities and int64 pair numbers of level `i`, each [N, min(pairs, topk)]; its pairs are counted from `first`."""
    if pairs <= topk:
        return qualities, b.constant(f"pair{i}", np.tile(np.arange(first, first + pairs), (batch, 1)))
    values, index = b.topk(f"best{i}", qualities, topk)
    return values, b.op("Add", f"pair{i}", index, np.array(first, np.int64))


def _boxes(b: Builder, head: RawHead) -> gs.Variable:
    """float32 [N * L, 4]: location -/+ distances, in input pixels."""
    parts = []
    for level in head.levels:
        signed = np.array([-level.stride] * 2 + [level.stride] * 2, np.float32).reshape(1, 4, 1)
        distances = b.reshape(f"distances{level.number}", level.bbox_reg, (head.batch, 4, level.locations))
        parts.append(b.op("Mul", f"pixels{level.number}", distances, signed))
    corners = b.op("Add", "corners", b.concat("pixels", parts, 2), _location_corners(head))
    return b.reshape("box_rows", b.transpose("boxes_all", corners, (0, 2, 1)), (head.batch * head.locations, 4))


def _location_corners(head: RawHead) -> Array:
    """float32 [1, 4, L]: x, y, x, y of each location, x * stride + stride // 2."""
    parts = []
    for level in head.levels:
        ys, xs = np.mgrid[: level.hw[0], : level.hw[1]] * level.stride + level.stride // 2
        parts.append(np.stack([xs.ravel(), ys.ravel()] * 2))
    return np.concatenate(parts, axis=1, dtype=np.float32)[None]
