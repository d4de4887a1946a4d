"""The order of the steps, and what is checked before and after them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError
from trt_blendmask.export import as_config
from trt_blendmask.files import check_outputs
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.export_graph import export_checked
from trt_blendmask.surgery.images import rewrite_images
from trt_blendmask.surgery.macs import count_graph_macs, count_macs
from trt_blendmask.surgery.nms import Kept, append_nms
from trt_blendmask.surgery.options import SurgeryOptions
from trt_blendmask.surgery.outputs import append_detections
from trt_blendmask.surgery.reading.group_norm import unify_group_norms
from trt_blendmask.surgery.reading.load import check_fixed_shapes, load_raw, save
from trt_blendmask.surgery.reading.looks_like import not_blendmask
from trt_blendmask.surgery.reading.parts import name_parts
from trt_blendmask.surgery.reading.raw_head import RawHead, find_raw_head
from trt_blendmask.surgery.reading.read_graph import free_names, read_graph
from trt_blendmask.surgery.report import StepOutcome, SurgeryReport
from trt_blendmask.surgery.selection import append_selection
from trt_blendmask.surgery.share_constants import share_constants
from trt_blendmask.surgery.sparse_top import append_dense_top, append_sparse_top, find_top_layer
from trt_blendmask.surgery.spec import resolve_spec
from trt_blendmask.surgery.split import Blend, half_paths, split
from trt_blendmask.surgery.tail import Filled, append_masks
from trt_blendmask.surgery.whole.end_to_end import Whole, check_options, cut_back, facts, own_tensors, read_whole
from trt_blendmask.surgery.whole.keep_own import append_own
from trt_blendmask.surgery.whole.normalised import take_off_normalisation
from trt_blendmask.surgery.whole.selection_proof import prove_selection
from trt_blendmask.surgery.whole.tail_only import replace_tail


class _Steps:
    """Counts the nodes around each step."""

    def __init__(self, graph: gs.Graph, before: tuple[StepOutcome, ...]) -> None:
        self.graph = graph
        self.outcomes = list(before)
        self._nodes = len(graph.nodes)

    def done(self, name: str, sentence: str) -> None:
        nodes = len(self.graph.nodes)
        self.outcomes.append(StepOutcome(name, sentence, self._nodes, nodes))
        self._nodes = nodes


def perform(raw: Path, output: Path, options: SurgeryOptions) -> SurgeryReport:
    """See `trt_blendmask.surgery.operate`."""
    paths = [output, *(half_paths(output) if options.split else ())]
    config = as_config(options.config) if options.config is not None else None
    options = replace(options, config=config)
    check_outputs(paths, [raw, *(config.files if config is not None else ())])
    loaded = load_raw(raw)
    whole = read_whole(loaded, raw)
    if whole is not None and whole.heads is None:
        return replace_tail(loaded, whole, raw, output, options)
    cut: tuple[StepOutcome, ...] = ()
    if whole is not None:
        check_options(whole, options)
        loaded, whole, cut = cut_back(loaded, whole)
    found = facts(whole, config is not None)
    try:
        if whole is None:
            loaded, found, cut = take_off_normalisation(loaded)
        check_fixed_shapes(loaded.model, raw)
        graph, read = read_graph(loaded, raw)
        head = find_raw_head(graph)
    except DataError as error:
        raise not_blendmask(loaded, raw, error) from error
    spec, source = resolve_spec(loaded.model, head, options, found)
    name_parts(graph, head)
    before = count_graph_macs(graph)
    free_names(graph)
    steps = _Steps(graph, (*cut, *read))
    if head.recognised:
        steps.done("recognised", head.recognised)
    sizes = "/".join(str(level.stride) for level in head.levels)
    steps.done(
        "raw_head",
        f"{len(head.levels)} levels of strides {sizes}, K {head.num_bases}, M {head.attention_size}, "
        f"{head.num_classes} classes; {source}",
    )
    if whole is not None and whole.own is None:
        steps.done("proof", prove_selection(whole, head, spec))
    if units := unify_group_norms(graph):
        steps.done("group_norm", f"{units} group norms of five nodes, each one unit by its name")
    steps.done("images", rewrite_images(graph, head, spec))
    blend = _append_all(graph, head, spec, whole, steps)
    share_constants(graph)
    graph.cleanup(remove_unused_graph_inputs=True).toposort()
    steps.done("cleanup", "what no output needs is gone")
    models = {output: export_checked(graph)}
    after = count_macs(models[output])
    if options.split:
        halves = split(graph, blend, spec)
        models |= dict(zip(half_paths(output), map(export_checked, halves), strict=True))
        steps.done("split", " and ".join(path.name for path in half_paths(output)) + ": the same in two files")
    sizes_bytes = save(models, spec)
    tensors = whole.tensors if whole is not None else ()
    return SurgeryReport(tuple(steps.outcomes), before, after, spec, output, sizes_bytes[output], tensors)


def _append_all(graph: gs.Graph, head: RawHead, spec: ModelSpec, whole: Whole | None, steps: _Steps) -> Blend:
    kept, attention = _append_kept(graph, head, spec, whole, steps)
    slots = spec.max_detections
    if attention is not None:
        steps.done("attention", "gathered as the file has it")
    elif spec.top == "sparse":
        top = find_top_layer(head)
        attention = append_sparse_top(graph, head, top, kept.locations, slots)
        places, channels = f"{slots} of {head.locations} locations", top.weight.shape[1]
        steps.done("sparse_top", f"top layer at {places}, as one product of {9 * channels} x {len(top.weight)}")
    else:
        attention = append_dense_top(graph, head, kept.locations)
        steps.done("dense_top", "top layer everywhere, as in training")
    detections = append_detections(graph, kept)
    steps.done("outputs", "count, boxes, scores, classes; empty slots hold 0, and class -1")
    filled = Filled(kept.batch, slots, detections[0], kept.valid)
    graph.outputs = [*detections, append_masks(graph, head.bases, kept.boxes, attention, filled, spec)]
    r, m = spec.mask_size, spec.attention_size
    blended = f"{head.num_bases} bases in {slots} unclipped boxes of {r} x {r}, attention {m} x {m}"
    steps.done("tail", f"{spec.tail}: {blended}; masks {spec.mask_dtype}")
    return Blend(head.bases, attention)


def _append_kept(
    graph: gs.Graph, head: RawHead, spec: ModelSpec, whole: Whole | None, steps: _Steps
) -> tuple[Kept, Any]:
    """The detections, and their attention where it does not come from the heads by location."""
    slots = spec.max_detections
    iou = f"IoU > {spec.nms_threshold:g}, by {spec.nms}"
    if whole is not None and whole.own is not None:
        kept, attention = append_own(graph, whole.own, own_tensors(graph), spec)
        rule = f"its suppression kept ({iou})" if whole.own.nms_boxes else "none suppressed, as in the file"
        steps.done("selection", f"the file's own {whole.own.count} candidates; {rule}; the best {slots} fill the slots")
        return kept, attention
    candidates = append_selection(graph, head, spec)
    rule = "class x centerness" if spec.thresh_with_ctr else "class probability"
    pairs = head.locations * head.num_classes
    steps.done("selection", f"{pairs} pairs, {rule} > {spec.score_threshold:g}, at most {candidates.count} go on")
    kept = append_nms(graph, candidates, spec)
    rule = f"class-wise, {iou}" if spec.nms_threshold > 0 else "none"
    steps.done("nms", f"suppression {rule}; {slots} slots")
    return kept, None
