"""Find BlendMask's core, RoIAlign plus blend (arXiv 2001.00309, section 3.2), in a graph of any exporter.

A graph is walked only to find where the core begins and ends. That what lies between is the blend, and with which
settings, is then proven by running it beside our own tail: so any spelling is taken, and nothing that only looks alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import onnx

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.reading.opset import opset_of
from trt_blendmask.surgery.whole.core_proof import Settings, proven_settings
from trt_blendmask.surgery.whole.wiring import VIEWS, Wiring, attributes

ALIGNED_OPSET = 16  # the first whose RoiAlign can take half a pixel off, which BlendMask's ROIAlignV2 does
_WEIGHTING = VIEWS | {
    "Softmax", "Resize", "Upsample", "Transpose", "Exp", "Log", "LogSoftmax", "Sub", "Add", "Div", "Mul", "Max", "Clip",
    "ReduceMax", "ReduceSum", "MatMul", "Einsum", "Expand", "Sum", "Split", "Concat", "Reciprocal",
}  # fmt: skip


@dataclass(frozen=True)
class Core:
    """The core of a graph: names of tensors and what they mean.

    Attributes:
        bases: float32 [N, K, Hb, Wb]. boxes: float32 [n, 4], or [n, 5] with the image's number in front where
            `with_batch`; input pixels. batch: int64 [n], number of the image, "" where there is one image only.
        attention: float32, n times K*M*M values. masks: what the core makes, n times R*R.
        slots: n, 0 where it depends on the data. bases_shape: N, K, Hb, Wb.
    """

    bases: str
    boxes: str
    with_batch: bool
    batch: str
    attention: str
    masks: str
    slots: int
    bases_shape: tuple[int, int, int, int]
    settings: Settings
    found: str


def find_core(wiring: Wiring) -> Core | None:
    """The core, None where the graph has no RoiAlign.

    Raises:
        DataError: there is a RoiAlign, but what follows is no blend of BlendMask, or cannot be fixed.
    """
    aligns = [node for node in wiring.model.graph.node if node.op_type == "RoiAlign"]
    if not aligns:
        return None
    if len(aligns) > 1:
        raise DataError(
            f"Expected one RoiAlign, that of BlendMask's blender, got {len(aligns)}: this looks like Mask R-CNN or "
            "another two-stage detector. Give a BlendMask."
        )
    align = aligns[0]
    bases_shape = _bases_shape(wiring, align)
    settings = replace(_settings_of_align(align, bases_shape[1]), can_align=opset_of(wiring.model) >= ALIGNED_OPSET)
    joined, masks, activation = _end(wiring, align, settings.mask_size)
    attention = _attention(wiring, align, joined, settings.num_bases)
    boxes, with_batch = _boxes(wiring, align.input[1])
    batch = align.input[2] if bases_shape[0] > 1 and not with_batch else ""
    shape = wiring.shape(align.output[0]) or (0,)
    slots = shape[0] or (wiring.shape(boxes) or (0,))[0]
    size = _per_box(wiring, attention, settings.num_bases)
    settings = replace(settings, attention_size=size, activation=activation)
    core = Core(align.input[0], boxes, with_batch, batch, attention, masks, slots, bases_shape, settings, "")
    core = replace(core, found=_chain(wiring, core))
    return replace(core, settings=proven_settings(wiring, core, settings))


def _bases_shape(wiring: Wiring, align: onnx.NodeProto) -> tuple[int, int, int, int]:
    shape = wiring.shape(align.input[0]) or ()
    if len(shape) != 4 or not all(shape):
        raise DataError(
            f"Expected a static shape [N, K, Hb, Wb] of the bases '{align.input[0]}' that RoiAlign reads, got "
            f"{list(shape)}. Export the model again with a fixed input size."
        )
    return shape[0], shape[1], shape[2], shape[3]


def _settings_of_align(align: onnx.NodeProto, bases: int) -> Settings:
    values = attributes(align)
    height, width = values.get("output_height", 1), values.get("output_width", 1)
    ratio, mode = values.get("sampling_ratio", 0), values.get("mode", "avg")
    name = align.name or align.output[0]
    if ratio < 1:
        raise DataError(
            f"Expected a fixed number of samples per cell in RoiAlign '{name}', got sampling_ratio {ratio}: it then "
            "depends on each box's size, which no fixed graph can do. Export the model again with sampling ratio 1."
        )
    if mode != "avg" or height != width:
        raise DataError(
            f"Expected RoiAlign '{name}' to average square cells, got mode '{mode}' of {height} x {width}: this is not "
            "BlendMask's blender. Give a BlendMask."
        )
    # Before opset 16 the file cannot say it; since then the half-pixel shift is the default.
    aligned = {"half_pixel": True, "output_half_pixel": False}.get(values.get("coordinate_transformation_mode", ""))
    return Settings(bases, 0, int(height), float(values.get("spatial_scale", 1.0)), int(ratio), aligned)


def _end(wiring: Wiring, align: onnx.NodeProto, r: int) -> tuple[list[str], str, str]:
    """The tensors from outside that join the RoiAlign's, the masks, and their activation.

    Forward through the nodes behind RoiAlign: where another branch has joined, and all goes through one tensor of R * R
    values per box, the blend is done.
    """
    after = wiring.after(align.output[0])
    live, joined = {align.output[0]}, []
    done: set[int] = set()
    for node in wiring.makers(after):
        joined += [x for x in wiring.data_inputs(node) if x not in after and x != align.output[0]]
        done.add(id(node))
        live = {x for x in live if any(id(n) not in done for n in wiring.consumers[x])} | set(node.output)
        if joined and len(live) == 1 and math.prod((wiring.shape(node.output[0]) or (0,))[1:]) == r * r:
            masks, activation = _activated(wiring, node.output[0])
            return joined, masks, activation
    raise DataError(
        f"Expected masks of {r} x {r} blended from RoiAlign's '{align.output[0]}' and an attention, but nothing joins "
        "it: this is not BlendMask's blender. Give a BlendMask."
    )


def _activated(wiring: Wiring, name: str) -> tuple[str, str]:
    """The masks behind a sigmoid that follows at once, else `name` itself: logits."""
    current = name
    while True:
        nodes = [n for n in wiring.consumers.get(current, ()) if n.op_type != "Shape"]
        if len(nodes) != 1 or current in wiring.outputs:
            return name, "none"
        if nodes[0].op_type == "Sigmoid":
            return nodes[0].output[0], "sigmoid"
        if nodes[0].op_type not in VIEWS:
            return name, "none"
        current = nodes[0].output[0]


def _attention(wiring: Wiring, align: onnx.NodeProto, joined: list[str], k: int) -> str:
    """Back from what joins, as long as it is arithmetic; the first tensor alone with K times a square per box."""
    best, live = "", set(joined)
    for node in reversed(wiring.makers(wiring.before(joined))):
        if not live & set(node.output):
            continue
        if len(live) == 1 and _per_box(wiring, min(live), k):
            best = min(live)
        if node.op_type not in _WEIGHTING:
            break
        live = (live - set(node.output)) | set(wiring.data_inputs(node))
    if len(live) == 1 and _per_box(wiring, min(live), k):
        best = min(live)
    if not best:
        raise DataError(
            f"Expected an attention of {k} times a square per box beside RoiAlign '{align.output[0]}', got "
            f"{', '.join(repr(x) for x in joined)}: this is not BlendMask's blender. Give a BlendMask."
        )
    return best


def _per_box(wiring: Wiring, name: str, k: int) -> int:
    """M, 0 where the tensor has not K * M * M values per box."""
    shape = wiring.shape(name) or ()
    count = math.prod(shape[1:]) // k if len(shape) >= 2 else 0
    fits = count > 0 and math.prod(shape[1:]) % k == 0 and math.isqrt(count) ** 2 == count
    if len(shape) == 4 and shape[1] != k:
        return 0
    return math.isqrt(count) if fits and len(shape) in (2, 3, 4) else 0


def _boxes(wiring: Wiring, name: str) -> tuple[str, bool]:
    """The boxes behind slicing [n, 5] and joining a column of image numbers."""
    node = wiring.producer(name)
    while node is not None and node.op_type in VIEWS | {"Slice", "Gather"}:
        source = node.input[0]
        if node.op_type == "Gather" and attributes(node).get("axis", 0) != 1:
            break
        columns = (wiring.shape(source) or (0,))[-1]
        if node.op_type in ("Slice", "Gather") and columns != 5:
            break
        name, node = source, wiring.producer(source)
    if (wiring.shape(name) or (0,))[-1] != 5:
        return name, False
    if node is not None and node.op_type == "Concat" and (wiring.shape(node.input[-1]) or (0,))[-1] == 4:
        return node.input[-1], False
    return name, True


def _chain(wiring: Wiring, core: Core) -> str:
    """The ops of the core in order, with the attributes that matter, for messages."""
    inside = wiring.before([core.masks], {core.bases, core.boxes, core.attention, core.batch})
    inside -= {core.bases, core.boxes, core.attention}
    words: list[str] = []
    for node in wiring.makers(inside - set(wiring.constants)):
        if node.op_type in ("Shape", "Constant", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Expand"):
            continue
        values = attributes(node)
        named = ("mode", "equation", *(["coordinate_transformation_mode"] if node.op_type == "Resize" else ()))
        details: list[Any] = [values[key] for key in named if key in values]
        details += [f"axis {values['axis']}"] if "axis" in values else []
        words.append(f"{node.op_type}({', '.join(map(str, details))})" if details else node.op_type)
    return ", ".join(words)
