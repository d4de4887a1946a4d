"""From any opset between 9 and the newest that onnx knows to opset 17, which every runtime of today reads."""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_graphsurgeon as gs
from onnx import helper

from trt_blendmask.surgery.reading.upsample import ASIDE, unset_aside

OLDEST_OPSET, OPSET = 9, 17
# Ops whose later versions only added types and attributes; the attributes, with the value that changes nothing.
_SAME_SINCE_17 = """
Add BatchNormalization Clip Concat Conv Div Exp Gather InstanceNormalization MatMul MaxPool Mul Relu Reshape Resize
Sigmoid Slice Softmax Sub Tanh Transpose Unsqueeze
"""
_ADDED = {"Resize": {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}}


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard ops; 0: none is declared."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 17 or later; enlarging nodes may have been set aside.

    Raises:
        Exception: what the converter, which is C++, says of ops that it cannot bring up.
    """
    if opset_of(model) >= OPSET:
        return model
    for node in model.graph.node:
        if node.op_type == "Dropout" and len(node.input) == 1 and not any(node.output[1:]):
            node.op_type = "Identity"  # which it is once trained; the converter would give it inputs
            del node.attribute[:]
            del node.output[1:]
    model.opset_import.append(helper.make_opsetid(ASIDE, 1))
    raised = onnx.version_converter.convert_version(model, OPSET)
    unset_aside(raised)
    return raised


def lower_opset(graph: gs.Graph) -> str:
    """Declare opset 17 where all ops mean there what they mean in the file; returns a sentence, empty if not done."""
    if graph.opset <= OPSET or not all(_means_the_same(node) for node in graph.nodes):
        return ""
    for node in graph.nodes:
        for name in _ADDED.get(node.op, {}):
            node.attrs.pop(name, None)
    came, graph.opset = graph.opset, OPSET
    graph.import_domains = [helper.make_opsetid("", OPSET)]
    return f"opset {came} -> {OPSET}, in which these ops mean the same"


def _means_the_same(node: gs.Node) -> bool:
    added = _ADDED.get(node.op, {})
    if any(node.attrs.get(name, value) != value for name, value in added.items()):
        return False
    if node.op == "Resize" and (
        "axes" in node.attrs or node.attrs.get("coordinate_transformation_mode") == "half_pixel_symmetric"
    ):
        return False
    return node.op in _SAME_SINCE_17.split() and (node.domain or "") in ("", "ai.onnx")
