"""Run a file's data dependent selection beside ours on made-up heads: the same detections, or it is not replaced."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, first_line
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.nms import append_nms
from trt_blendmask.surgery.reading.ends import PARTS
from trt_blendmask.surgery.reading.load import OLDEST_IR
from trt_blendmask.surgery.reading.merge_weights import Array
from trt_blendmask.surgery.reading.raw_head import HeadLevel, RawHead
from trt_blendmask.surgery.selection import append_selection
from trt_blendmask.surgery.sparse_top import append_dense_top
from trt_blendmask.surgery.whole.core_proof import LARGEST, run
from trt_blendmask.surgery.whole.end_to_end import Whole, facts
from trt_blendmask.surgery.whole.wiring import cut_part, described

_SLOTS, _CHANCES, _SEEDS = 200, 60, (1, 2)  # rather fewer pass than there are slots
_BOUNDS = (("boxes", 1e-2), ("attention", 1e-5), ("scores", 1e-5), ("classes", 0))


def prove_selection(whole: Whole, head: RawHead, spec: ModelSpec) -> str:
    """The sentence for the report.

    Raises:
        DataError: the file keeps other detections than ours with the thresholds read from it.
    """
    spec = (
        replace(spec, **facts(whole, False)) if facts(whole, False) else spec
    )  # options are the user's wish, not the file's
    spec = replace(spec, max_detections=_SLOTS, nms="op")
    if sum(math.prod(getattr(level, part).shape) for level in head.levels for part in PARTS) > LARGEST:
        raise _different(whole, spec, "heads too large to try it")
    ours, total = _our_model(head, spec), 0
    for seed in _SEEDS:
        feeds = _feeds(head, np.random.default_rng(seed))
        valid, *tensors = run(ours, feeds)
        mine = [x.reshape(_SLOTS, -1)[valid[0]] for x in tensors]
        theirs = _run_theirs(whole, feeds)
        kept = min(len(mine[0]), whole.thresholds.cap or len(mine[0]))
        if len(theirs[0]) != kept:
            raise _different(whole, spec, f"{len(theirs[0])} detections where ours keeps {kept}")
        for (name, bound), a, b in zip(_BOUNDS, theirs, mine, strict=False):
            difference = float(np.max(np.abs(a.reshape(kept, -1) - b[:kept]), initial=0))
            if not difference <= bound:
                raise _different(whole, spec, f"{name} that differ from ours by {difference:.3g}")
        total += kept
    return f"the file and ours keep the same {total} detections of made-up heads"


def _different(whole: Whole, spec: ModelSpec, came: str) -> DataError:
    said = f"score > {spec.score_threshold:g}, IoU > {spec.nms_threshold:g}"
    return DataError(
        f"Expected AdelaiDet's selection ({said}) between the heads and '{whole.core.boxes}', got {came}, and "
        "replacing it would change what the file computes. Export the raw heads alone, or selection with fixed shapes."
    )


def _feeds(head: RawHead, rng: np.random.Generator) -> dict[str, Array]:
    """Heads as a trained network has them: mostly nothing, some groups of overlapping objects, some near the bounds."""
    feeds: dict[str, Array] = {}
    image_h, image_w = head.input_hw
    for level in head.levels:
        h, w = level.hw
        logits = rng.standard_normal(level.logits.shape, np.float32) / 2 - 9
        few = rng.integers(0, min(3, head.num_classes), _CHANCES)
        logits[0, few, rng.integers(0, h, _CHANCES), rng.integers(0, w, _CHANCES)] = rng.uniform(-4, 3, _CHANCES)
        ys, xs = np.mgrid[:h, :w] * level.stride + level.stride // 2
        room = np.stack([xs, ys, image_w - xs, image_h - ys]) / level.stride  # boxes leave the image a little
        distances = np.minimum(room + 8 / level.stride, room.max() / 3) * rng.uniform(0.7, 0.95, (4, h, w))
        values = {
            "logits": logits,
            "bbox_reg": np.maximum(distances, 0.01)[None],
            "centerness": rng.uniform(-1, 3, level.centerness.shape),
            "top_feats": rng.standard_normal(level.top_feats.shape, np.float32),
        }
        feeds |= {f"P{level.number}{part}": values[part].astype(np.float32) for part in PARTS}
    return feeds


def _run_theirs(whole: Whole, feeds: dict[str, Array]) -> list[Array]:
    """Boxes, attention and, where they can be told, scores and classes, of each detection one row."""
    assert whole.heads is not None
    named = {tensor: feeds[role] for role, tensor in whole.heads.names.items() if role in feeds}
    inputs = {tensor: described(tensor, values) for tensor, values in named.items()}
    wanted = (whole.core.boxes, whole.core.attention, *(whole.results or ()))
    try:
        part = cut_part(whole.wiring, inputs, {name: f"result{i}" for i, name in enumerate(wanted)})
        boxes, *others = run(part, named)
    except Exception as error:  # ONNX Runtime raises what it likes
        raise DataError(
            f"Expected a selection between the heads and '{whole.core.boxes}' that runs on its own, got: "
            f"{first_line(error)}. Export the raw heads alone."
        ) from error
    boxes = boxes.reshape(-1, boxes.shape[-1])[:, -4:]
    return [boxes, *(x.reshape(len(boxes), -1) for x in others)]


def _our_model(head: RawHead, spec: ModelSpec) -> onnx.ModelProto:
    """Heads -> valid, boxes, attention, scores and classes of each slot."""
    tensors: dict[str, gs.Variable] = {}
    levels = []
    for level in head.levels:
        named = {f"P{level.number}{part}": getattr(level, part) for part in PARTS}
        copies = {name: gs.Variable(name, tensor.dtype, tensor.shape) for name, tensor in named.items()}
        levels.append(HeadLevel(level.number, level.stride, level.hw, *copies.values()))
        tensors |= copies
    alone = replace(head, levels=tuple(levels))
    graph = gs.Graph(opset=17, inputs=list(tensors.values()))
    kept = append_nms(graph, append_selection(graph, alone, spec), spec)
    attention = append_dense_top(graph, alone, kept.locations)
    graph.outputs = [kept.valid, kept.boxes, attention, kept.scores, kept.classes]
    for tensor in graph.outputs:
        tensor.dtype = np.dtype({"valid": np.bool_, "classes": np.int32}.get(tensor.name.split(".")[1], np.float32))
    model: onnx.ModelProto = gs.export_onnx(graph.cleanup().toposort(), do_type_check=False)
    model.ir_version = OLDEST_IR
    return model
