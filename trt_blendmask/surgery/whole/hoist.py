"""`If` around a suppression: torchvision's batched_nms under TorchScript asks whether there are boxes at all.

For reading such a graph, the branch that suppresses stands in the graph itself; the other one is for no boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from trt_blendmask.onnx_bounds import inner_graphs


def hoist_suppression(model: onnx.ModelProto) -> None:
    """Put, in place, the branch with NonMaxSuppression (of two, the one without a loop) where its `If` was."""
    nodes = [node for outer in model.graph.node for node in _hoisted(model, outer)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _hoisted(model: onnx.ModelProto, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    branch = _branch(node) if node.op_type == "If" else None
    if branch is None:
        yield node
        return
    model.graph.initializer.extend(branch.initializer)
    for inner in branch.node:
        yield from _hoisted(model, inner)
    for inside, outside in zip(branch.output, node.output, strict=True):
        yield helper.make_node("Identity", [inside.name], [outside])


def _branch(node: onnx.NodeProto) -> onnx.GraphProto | None:
    found = (body for body in inner_graphs(node) if _holds(body, "NonMaxSuppression") and not _holds(body, "Loop"))
    return next(found, None)


def _holds(body: onnx.GraphProto, op: str) -> bool:
    return any(n.op_type == op or any(_holds(inner, op) for inner in inner_graphs(n)) for n in body.node)
