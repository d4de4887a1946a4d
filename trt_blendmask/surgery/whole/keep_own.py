"""The detections of a graph that selects by itself, brought into the D slots of the deployable contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.nms import Kept, append_nms
from trt_blendmask.surgery.selection import Candidates
from trt_blendmask.surgery.whole.own_selection import OwnSelection


def append_own(graph: gs.Graph, own: OwnSelection, parts: dict[str, Any], spec: ModelSpec) -> tuple[Kept, Any]:
    """Append the choice of D of the file's candidates: by its suppression where it has one, else by score alone.

    `parts` holds the tensors of the fields of `own` that are not empty. Where the locations are known the kept ones
    come with `Kept.locations`, and the attention is None; else the attention comes as float32 [D, K*M*M].
    """
    b, n = Builder(graph, "own"), own.count
    number = b.constant("number", np.arange(n, dtype=np.int64)[None])
    compared = b.reshape("nms_boxes", parts["nms_boxes" if own.nms_boxes else "boxes"], (1, n, 4))
    scores = b.reshape("scores", parts["scores"], (1, n))
    # The file's boxes are apart by class already, or not meant to be: one class for all.
    one = b.constant("class", np.zeros((1, n), np.int32))
    candidates = Candidates(1, n, compared, scores, one, number)
    kept = append_nms(graph, candidates, replace(spec, class_names=spec.class_names[:1]))

    def of_kept(name: str, shape: tuple[int, ...]) -> gs.Variable:
        return b.gather(f"kept_{name}", b.reshape(name, parts[name], (n, *shape)), kept.locations)

    classes = b.cast("classes32", of_kept("classes", ()), np.int32)
    kept = replace(kept, boxes=of_kept("boxes", (4,)), classes=classes)
    if own.locations:
        locations = b.cast("locations64", of_kept("locations", ()), np.int64)
        return replace(kept, locations=locations), None
    channels = spec.num_bases * spec.attention_size**2
    return kept, b.reshape("attention_rows", of_kept("attention", (channels,)), (-1, channels))
