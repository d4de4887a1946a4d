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
from trt_blendmask.surgery.raw_head import RawHead

MAX_CANDIDATES = 1000


@dataclass(frozen=True)
class Candidates:
    """The best pairs of all levels, scores descending; score 0 marks a slot without a candidate.

    Attributes:
        count: n, slots per image. boxes: float32 [N, n, 4] xyxy in input pixels, not clipped. scores: float32 [N, n].
        classes: int32 [N, n]. locations: int64 [N, n], numbers of 0 ... L - 1.
    """

    batch: int
    count: int
    boxes: Any
    scores: Any
    classes: Any
    locations: Any


def append_selection(graph: gs.Graph, head: RawHead, spec: ModelSpec) -> Candidates:
    """Append the choice of candidates by `score_threshold`, `thresh_with_ctr` and `pre_nms_topk`.

    At most 1000 candidates (or D, where that is more) leave: suppression only looks at better ones, so the cut changes
    a result only where more than 1000 pairs pass the threshold and fewer than D of the best 1000 survive.
    """
    b = Builder(graph, "selection")
    qualities = _qualities(b, head, spec)
    pairs = [level.locations * head.num_classes for level in head.levels]
    count = min(sum(min(p, spec.pre_nms_topk) for p in pairs), max(MAX_CANDIDATES, spec.max_detections))
    if spec.pre_nms_topk < min(count, max(pairs)):
        scores, pair = _best_per_level(b, qualities, pairs, spec.pre_nms_topk, count, head.batch)
    else:  # the best `count` of all levels are among the best `pre_nms_topk` of their own
        scores, pair = b.topk("best", b.op("Sqrt", "scores", qualities), count)
    c = np.array(head.num_classes, np.int64)
    locations = b.op("Div", "locations", pair, c)
    classes = b.op("Sub", "classes64", pair, b.op("Mul", "first_pairs", locations, c))
    boxes = b.take("boxes", _boxes(b, head), locations, head.batch, head.locations)
    return Candidates(head.batch, count, boxes, scores, b.cast("classes", classes, np.int32), locations)


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


def _best_per_level(
    b: Builder, qualities: Any, pairs: list[int], topk: int, count: int, batch: int
) -> tuple[gs.Variable, gs.Variable]:
    values, indices = [], []
    for i, part in enumerate(b.split("by_level", qualities, pairs, 1)):
        value, index = b.topk(f"best{i}", part, min(topk, pairs[i]))
        values.append(value)
        indices.append(b.op("Add", f"pair{i}", index, np.array(sum(pairs[:i]), np.int64)))
    quality = b.concat("best_quality", values, 1)
    total = sum(min(p, topk) for p in pairs)
    scores, order = b.topk("best", b.op("Sqrt", "scores", quality), count)
    flat = b.reshape("pair_rows", b.concat("pair", indices, 1), (batch * total,))
    return scores, b.take("best_pair", flat, order, batch, total)


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
