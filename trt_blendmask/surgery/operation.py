"""The order of the steps, and what is checked before and after them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.files import check_outputs
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.images import rewrite_images
from trt_blendmask.surgery.load import OLDEST_IR, load_raw, save
from trt_blendmask.surgery.macs import count_macs
from trt_blendmask.surgery.nms import append_nms
from trt_blendmask.surgery.options import SurgeryOptions
from trt_blendmask.surgery.outputs import append_outputs
from trt_blendmask.surgery.raw_head import RawHead, find_raw_head
from trt_blendmask.surgery.read_graph import fold_constants, free_names, read_graph
from trt_blendmask.surgery.report import StepOutcome, SurgeryReport
from trt_blendmask.surgery.selection import append_selection
from trt_blendmask.surgery.sparse_top import append_dense_top, append_sparse_top, find_top_layer
from trt_blendmask.surgery.spec import resolve_spec
from trt_blendmask.surgery.tail_native import append_tail


class _Steps:
    """Counts the nodes around each step."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph
        self.outcomes: list[StepOutcome] = []
        self._nodes = len(graph.nodes)

    def done(self, name: str, sentence: str) -> None:
        nodes = len(self.graph.nodes)
        self.outcomes.append(StepOutcome(name, sentence, self._nodes, nodes))
        self._nodes = nodes


def perform(raw: Path, output: Path, options: SurgeryOptions) -> SurgeryReport:
    """See `trt_blendmask.surgery.operate`."""
    check_outputs([output], [raw] if options.config is None else [raw, options.config])
    model = load_raw(raw)
    graph = read_graph(model, raw)
    head = find_raw_head(graph)
    spec, source = resolve_spec(model, head, options)
    before = count_macs(model)
    free_names(graph)
    steps = _Steps(graph)
    sizes = "/".join(str(level.stride) for level in head.levels)
    steps.done(
        "raw_head",
        f"{len(head.levels)} levels of strides {sizes}, K {head.num_bases}, M {head.attention_size}, "
        f"{head.num_classes} classes; {source}",
    )
    if fold_constants(graph):
        steps.done("constants", "arithmetic on shapes became constants")
    steps.done("images", rewrite_images(graph, head, spec))
    _append_all(graph, head, spec, steps)
    graph.cleanup(remove_unused_graph_inputs=True).toposort()
    steps.done("cleanup", "what no output needs is gone")
    deployable = _export(graph)
    after = count_macs(deployable)
    size = save(deployable, spec, output)
    return SurgeryReport(tuple(steps.outcomes), before, after, spec, output, size)


def _append_all(graph: gs.Graph, head: RawHead, spec: ModelSpec, steps: _Steps) -> None:
    candidates = append_selection(graph, head, spec)
    rule = "class x centerness" if spec.thresh_with_ctr else "class probability"
    pairs = head.locations * head.num_classes
    steps.done("selection", f"{pairs} pairs, {rule} > {spec.score_threshold:g}, at most {candidates.count} go on")
    slots = spec.max_detections
    kept = append_nms(graph, candidates, spec.nms_threshold, slots)
    rule = f"class-wise, IoU > {spec.nms_threshold:g}" if spec.nms_threshold > 0 else "none"
    steps.done("nms", f"suppression {rule}; {slots} slots")
    if spec.top == "sparse":
        top = find_top_layer(head)
        attention = append_sparse_top(graph, head, top, kept.locations, slots)
        places, channels = f"{slots} of {head.locations} locations", top.weight.shape[1]
        steps.done("sparse_top", f"top layer at {places}, as one product of {9 * channels} x {len(top.weight)}")
    else:
        attention = append_dense_top(graph, head, kept.locations)
        steps.done("dense_top", "top layer everywhere, as in training")
    masks = append_tail(graph, head.bases, kept.boxes, attention, slots, spec)
    r, m = spec.mask_size, spec.attention_size
    steps.done("tail", f"native: {head.num_bases} bases in {slots} unclipped boxes of {r} x {r}, attention {m} x {m}")
    graph.outputs = append_outputs(graph, kept, masks, spec)
    steps.done("outputs", f"count, boxes, scores, classes, masks ({spec.mask_dtype})")


def _export(graph: gs.Graph) -> onnx.ModelProto:
    """The checked model; a failure here is our own fault, not the user's."""
    model = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = max(OLDEST_IR, onnx.helper.find_min_ir_version_for(model.opset_import))
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise TrtBlendMaskError(f"Surgery made a graph that does not check: {error}") from error
    return model
