"""Multiply-adds of a model, by part."""

from __future__ import annotations

import math
import re
from collections import Counter

import onnx

from trt_blendmask.errors import DataError

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


def count_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-adds of one run (the whole batch) in convolutions and matrix products, per part of `PARTS`.

    Raises:
        DataError: shapes that contradict one another.
    """
    shapes = static_shapes(model)
    fallback = _parts_by_position(model.graph)
    totals = Counter(dict.fromkeys(PARTS, 0))
    for index, node in enumerate(model.graph.node):
        macs = _node_macs(node, shapes)
        if macs:
            totals[_part(node.name) or fallback[index]] += macs
    return dict(totals)


def static_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor after strict shape inference; dimensions that are not static are 0.

    Raises:
        DataError: shapes that contradict one another.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:  # its C++ side raises several kinds
        raise DataError(f"The graph's shapes contradict one another: {_first_line(error)}.") from error
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        if info.name not in shapes:
            shapes[info.name] = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
    return shapes


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _node_macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type in ("Conv", "DeformConv"):
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
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
