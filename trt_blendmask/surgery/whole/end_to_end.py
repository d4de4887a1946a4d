"""A graph that goes on behind the heads: cut back to them, its own selection kept as far as its shapes are fixed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, TrtBlendMaskError, UsageError
from trt_blendmask.surgery.options import SurgeryOptions
from trt_blendmask.surgery.reading.fold_shapes import fold_shapes
from trt_blendmask.surgery.reading.load import OLDEST_IR, Loaded
from trt_blendmask.surgery.reading.read_graph import fix_batch
from trt_blendmask.surgery.report import CutTensor, StepOutcome
from trt_blendmask.surgery.whole.core import Core, find_core
from trt_blendmask.surgery.whole.hoist import hoist_suppression
from trt_blendmask.surgery.whole.inner_heads import InnerHeads, Picture, find_inner_heads, find_picture
from trt_blendmask.surgery.whole.own_selection import (
    OwnSelection,
    Thresholds,
    find_own_selection,
    find_results,
    read_thresholds,
)
from trt_blendmask.surgery.whole.wiring import Wiring, cut_part, read_wiring

OWN = "file."  # outputs of the cut graph that carry the file's own selection
_UNSAID = (
    "not taken off by this file's RoiAlign, for no opset below 16 can say it; ROIAlignV2 does: --config or --preset "
    "decides, without one the file's masks are kept as they are"
)
_PER_CANDIDATE = ("boxes", "scores", "classes", "attention", "locations", "nms_boxes")


@dataclass(frozen=True)
class Whole:
    """A whole network as it came, read up to its masks.

    Attributes:
        heads: None for a tail alone. own: None where our selection takes over.
        results: the outputs that hold scores and classes, where they can be told.
        tensors: at the cut.
    """

    wiring: Wiring
    core: Core
    picture: Picture | None
    heads: InnerHeads | None
    own: OwnSelection | None
    thresholds: Thresholds
    results: tuple[str, str] | None = None
    tensors: tuple[CutTensor, ...] = ()


def read_whole(loaded: Loaded, path: Path) -> Whole | None:
    """None where no RoiAlign is in the graph.

    Raises:
        DataError: there is one, but not as in BlendMask, or what lies around it cannot be told.
    """
    if not any(node.op_type == "RoiAlign" for node in loaded.model.graph.node):
        return None
    try:
        return _read_whole(loaded)
    except TrtBlendMaskError:
        raise
    except Exception as error:  # onnx and numpy raise several kinds for graphs that do not hold together
        raise DataError(
            f"'{path}' is an ONNX file that does not hold together: {str(error).splitlines()[:1]}. Export it again."
        ) from error


def _read_whole(loaded: Loaded) -> Whole | None:
    model = onnx.ModelProto()
    model.CopyFrom(loaded.model)
    model.ir_version = OLDEST_IR
    batch = fix_batch(model)
    hoist_suppression(model)
    fold_shapes(model, loaded.weights)
    wiring = read_wiring(model, loaded.weights.arrays)
    core = find_core(wiring)
    if core is None:
        return None
    if not any(node.op_type == "Conv" for node in model.graph.node):
        return Whole(wiring, core, None, None, None, Thresholds())
    picture = find_picture(wiring, wiring.inputs)
    if batch:
        picture = replace(picture, sentence=f"{picture.sentence}; {batch}")
    heads = find_inner_heads(wiring, core, picture)
    if core.bases_shape[0] != 1:
        raise DataError(
            f"Expected one image per run in a file that selects by itself, got {core.bases_shape[0]}. Export it again "
            "with batch 1, or give a raw-head ONNX."
        )
    results = find_results(wiring, core)
    own = find_own_selection(wiring, core, heads, results)
    thresholds = Thresholds() if own else read_thresholds(wiring, core, heads)
    return Whole(wiring, core, picture, heads, own, thresholds, results)


def check_options(whole: Whole, options: SurgeryOptions) -> None:
    """Refuse what a selection inside the file cannot follow.

    Raises:
        UsageError: a threshold that it does not have, or more detections than it gives.
    """
    own, asked = whole.own, []
    if own is None:
        return
    if options.score_threshold is not None:
        asked.append("--score-threshold")
    if options.nms_threshold is not None and not own.nms_boxes:
        asked.append("--nms-threshold")
    if own.cap < own.count and (options.max_detections or 0) > own.cap:
        asked.append(f"--max-detections over {own.cap}")
    if asked:
        raise UsageError(
            f"Expected no {asked[0]}: this file selects by itself, {own.count} candidates and at most {own.cap} "
            "detections, and that is kept. Leave the option out, or start from a raw-head ONNX."
        )


def own_tensors(graph: gs.Graph) -> dict[str, gs.Variable]:
    """The file's own selection by its parts, which are outputs of the cut graph."""
    return {tensor.name.removeprefix(OWN): tensor for tensor in graph.outputs if tensor.name.startswith(OWN)}


def cut_back(loaded: Loaded, whole: Whole) -> tuple[Loaded, Whole, tuple[StepOutcome, ...]]:
    """The file's graph up to its heads, under the names of the raw-head contract, and its own selection as `file.*`."""
    wiring, picture, heads = whole.wiring, whole.picture, whole.heads
    assert picture is not None
    assert heads is not None
    outputs = dict(heads.names.items())
    if whole.own is not None:
        parts = [part for part in _PER_CANDIDATE if getattr(whole.own, part)]
        if whole.own.locations:
            parts.remove("attention")  # which comes from the heads then
        outputs |= {OWN + part: getattr(whole.own, part) for part in parts}
    model = cut_roles(wiring, {picture.tensor: picture.value(wiring)}, outputs, loaded)
    tensors = tuple(CutTensor(name, role, wiring.shape(name) or ()) for role, name in outputs.items())
    came, left = len(loaded.model.graph.node), len(wiring.makers(wiring.before(outputs.values())))
    steps = [
        StepOutcome("core", f"RoIAlign and blend found and proven equal to the tail: {whole.core.found}", came, came),
        StepOutcome("cut", f"everything behind {len(tensors)} tensors is out: {_left_behind(whole)}", came, left),
        StepOutcome("picture", picture.sentence, left, left),
    ]
    if not whole.core.settings.can_align:
        steps.append(StepOutcome("half pixel", _UNSAID, left, left))
    return Loaded(model, loaded.weights), replace(whole, tensors=tensors), tuple(steps)


def _left_behind(whole: Whole) -> str:
    read, wiring = whole.thresholds, whole.wiring
    if whole.own is not None:
        same = wiring.unviewed(whole.core.boxes) in map(wiring.unviewed, wiring.outputs)
        other = "" if same else f"; 'boxes' are those that RoiAlign reads, '{whole.core.boxes}', which were no output"
        return "the core" + (" and the suppression" if whole.own.nms_boxes else "") + other
    facts = [f"score > {read.score_threshold:g}" if read.score_threshold is not None else "score threshold assumed"]
    facts.append(f"IoU > {read.nms_threshold:g}" if read.nms_threshold is not None else "IoU threshold assumed")
    facts.append("no cap" if read.cap is None else f"at most {read.cap}")
    return f"core and selection, whose shapes depend on the data; read from it: {', '.join(facts)}"


def cut_roles(
    wiring: Wiring, inputs: dict[str, onnx.ValueInfoProto], roles: dict[str, str], loaded: Loaded
) -> onnx.ModelProto:
    """The graph between `inputs` and the tensors of `roles` (role: tensor), which become outputs of those names."""
    tensors = dict.fromkeys(roles.values())
    part = cut_part(wiring, inputs, {name: name for name in tensors}, set(loaded.weights.arrays))
    del part.graph.output[:]
    types = _types(wiring)
    for role, name in roles.items():  # one tensor may play two roles
        if role != name:
            part.graph.node.append(onnx.helper.make_node("Identity", [name], [role]))
        value = types[name]
        part.graph.output.append(onnx.ValueInfoProto(name=role, type=value.type))
    return part


def _types(wiring: Wiring) -> dict[str, onnx.ValueInfoProto]:
    inferred = onnx.shape_inference.infer_shapes(wiring.model, data_prop=True).graph
    return {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}


def facts(whole: Whole | None, configured: bool) -> dict[str, Any]:
    """What a whole file itself says of its settings: they win over a configuration, if there is one.

    But for the half-pixel shift, where the file's opset could not say it.
    """
    if whole is None:
        return {}
    settings, picture, own, read = whole.core.settings, whole.picture, whole.own, whole.thresholds
    found: dict[str, Any] = {
        "mask_size": settings.mask_size,
        "sampling_ratio": settings.sampling_ratio,
        "aligned": settings.aligned is not False,
        "attention_interpolation": settings.interpolation,
    }
    if configured and not settings.can_align:
        del found["aligned"]
    if picture is not None and picture.mean is not None:
        found |= {"pixel_mean": picture.mean, "pixel_std": picture.std}
    if own is not None:
        found |= {"score_threshold": 0.0, "nms_threshold": own.nms_threshold, "pre_nms_topk": own.count}
    if own is not None and (own.cap < own.count or not own.nms_boxes):
        found["max_detections"] = own.cap
    names = ("score_threshold", "thresh_with_ctr", "nms_threshold")
    found |= {name: getattr(read, name) for name in names if getattr(read, name) is not None}
    if read.cap is not None:
        found["max_detections"] = read.cap
    return found
