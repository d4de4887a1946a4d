"""Multiply-adds of a model, by part."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

import onnx
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, first_line
from trt_blendmask.surgery.reading.merge_weights import without_weights

PARTS = ("backbone", "fpn", "towers", "predictors", "basis", "top_layer", "selection", "tail")
# The first that a node's name holds: names of our exporter ("head.P3.cls_tower.0"), of AdelaiDet's
# ("/m/proposal_generator/fcos_head/cls_tower/..."), and of the surgery's own nodes.
_NAMES = tuple(
    (re.compile(pattern), part)
    for pattern, part in (
        (r"^(selection|nms|images)\.", "selection"),
        (r"^(tail|outputs)\.", "tail"),
        (r"^top\.|top_layer", "top_layer"),
        (r"basis", "basis"),
        (r"fpn|top_block|\bp[67]\b", "fpn"),
        (r"cls_logits|bbox_pred|ctrness|centerness", "predictors"),
        (r"tower", "towers"),
        (r"backbone|bottom_up|stem|res[2-5]", "backbone"),
    )
)
_SHARED_BY_BASES_AND_HEADS = "backbone"
_WEIGHTS = {"Conv": 1, "DeformConv": 1, "ConvInteger": 1, "QLinearConv": 3}  # which input they are
_PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul")
LAYERS = (*_WEIGHTS, "ConvTranspose", *_PRODUCTS)
_UNKNOWN = (0,)  # a shape that inference did not find
MAX_MACS = 1 << 60


def count_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of one run (the whole batch) in convolutions and matrix products, per part of `PARTS`.

    Raises:
        DataError: shapes that contradict one another.
    """
    totals = Counter(dict.fromkeys(PARTS, 0))
    for _, part, macs in macs_by_node(model):
        totals[part] += macs
    return dict(totals)


def macs_by_node(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str, int]]:
    """Each convolution and matrix product, its part and its multiply-adds, in the graph's order.

    Raises:
        DataError: shapes that contradict one another.
    """
    shapes = static_shapes(model)
    fallback = _parts_by_position(model.graph)
    for index, node in enumerate(model.graph.node):
        inputs = [shapes.get(name, _UNKNOWN) for name in node.input]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        output = shapes.get(node.output[0], _UNKNOWN) if node.output else _UNKNOWN
        macs = _node_macs(node.op_type, inputs, output, transposed)
        if macs > MAX_MACS:
            raise DataError(f"The graph's shapes are absurd: '{node.name[:80]}' would take a machine many years.")
        if macs:
            yield node, part_of(node.name, list(node.input)) or fallback[index], macs


def count_graph_macs(graph: gs.Graph) -> dict[str, int]:
    """The same of a graph whose shapes are known and whose nodes have names that tell their part."""
    totals = Counter(dict.fromkeys(PARTS, 0))
    for node in graph.nodes:
        macs = macs_of(node)
        if macs:
            totals[part_of(node.name, [x.name for x in node.inputs]) or _SHARED_BY_BASES_AND_HEADS] += macs
    return dict(totals)


def macs_of(node: gs.Node) -> int:
    """Multiply-adds of one node; 0 for all but convolutions and matrix products."""
    inputs, output = [tuple(x.shape or ()) for x in node.inputs], tuple(node.outputs[0].shape or ())
    return _node_macs(node.op, inputs, output, bool(node.attrs.get("transA", 0)))


def part_of(name: str, inputs: list[str]) -> str:
    """What the name of a node, or else that of its weights, says; empty: nothing."""
    return _part(name) or (_part(inputs[1]) if len(inputs) > 1 else "")


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor after strict shape inference; dimensions that are not static are 0.

    Raises:
        DataError: shapes that contradict one another.
    """
    graph = inferred(model)
    shapes = {t.name: tuple(max(side, 0) for side in t.dims) for t in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.name not in shapes:
            shapes[info.name] = tuple(max(d.dim_value, 0) for d in info.type.tensor_type.shape.dim)
    return shapes


def inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with the type and shape of every tensor; inputs stand for its large weights.

    Raises:
        DataError: shapes or types that contradict one another.
    """
    try:
        return onnx.shape_inference.infer_shapes(
            without_weights(model), check_type=True, strict_mode=True, data_prop=True
        ).graph
    except Exception as error:  # its C++ side raises several kinds
        raise DataError(f"The graph's shapes contradict one another: {first_line(error)}.") from error


def _node_macs(op: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], transposed: bool) -> int:
    if op in _WEIGHTS and len(inputs) > _WEIGHTS[op]:
        return math.prod(output) * math.prod(inputs[_WEIGHTS[op]][1:])
    if op == "ConvTranspose" and len(inputs) > 1:
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if op in _PRODUCTS and inputs and inputs[0]:
        return math.prod(output) * inputs[0][0 if transposed else -1]
    return 0


def _part(name: str) -> str:
    return next((part for pattern, part in _NAMES if pattern.search(name)), "")


def _parts_by_position(graph: onnx.GraphProto) -> list[str]:
    """For nodes whose names say nothing: what leads to bases and heads, to the bases only, to the heads only."""
    leads: dict[str, set[str]] = {}
    for output in graph.output:
        leads.setdefault(output.name, set()).add("basis" if output.name == "bases" else "towers")
    parts = []
    for node in reversed(graph.node):
        ends: set[str] = set().union(*(leads.get(name, set()) for name in node.output))
        for name in node.input:
            leads.setdefault(name, set()).update(ends)
        parts.append(next(iter(ends)) if len(ends) == 1 else _SHARED_BY_BASES_AND_HEADS)
    return parts[::-1]
