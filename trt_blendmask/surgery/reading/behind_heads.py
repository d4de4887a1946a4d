"""What some exporters put behind the heads: the sigmoid of logits and centerness, box distances times the stride.

The selection takes these steps itself, and taken twice they spoil every score and box without a word.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError

RECTIFIERS = ("Relu", "Clip", "Max")
PROBABILITIES = ("Sigmoid", "Softmax", "HardSigmoid", "LogSoftmax")
ACTIVATIONS = (*RECTIFIERS, *PROBABILITIES, "Tanh", "Exp", "Log", "Sqrt", "LeakyRelu", "Elu", "Softplus")
_EXPORT = "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"


def take_off(graph: gs.Graph, parts: dict[str, gs.Variable], stride: int) -> list[tuple[str, str]]:
    """Let the outputs `parts` ("logits", "bbox_reg" ...) of one level be what the network itself gives.

    Args:
        parts: changed in place where something was taken off. stride: of the level, in input pixels.

    Returns:
        Each op that was taken off, and the name of the output.
    """
    taken = []
    for part, tensor in parts.items():
        node = tensor.inputs[0] if tensor.inputs else None
        if node is None:
            continue
        if (part in ("logits", "centerness") and node.op == "Sigmoid") or (
            part == "bbox_reg" and _factor(node) == stride
        ):
            taken.append((node.op, tensor.name))
            parts[part] = _without(graph, node)
    return taken


def said(taken: list[tuple[str, str]]) -> str:
    """What was taken off, in a sentence; empty: nothing."""
    ops = dict.fromkeys(op for op, _ in taken)
    found = (f"{op} behind {', '.join(name for other, name in taken if other == op)} is taken off" for op in ops)
    return "; ".join(found)


def check_end(tensor: gs.Variable, part: str) -> None:
    """Refuse a head that ends in what neither the selection nor the tail expects there.

    Raises:
        DataError: the tensor's name, and the op.
    """
    if not tensor.inputs:
        return
    node, expected = tensor.inputs[0], ""
    product = node.op == "Mul" and all(isinstance(x, gs.Variable) for x in node.inputs)
    if part == "bbox_reg":
        if node.op not in RECTIFIERS:
            expected = "to end in Relu, in units of the level's stride"
    elif node.op in PROBABILITIES or (part in ("logits", "centerness") and (node.op in ACTIVATIONS or product)):
        expected = "as its convolution gives it"
    if expected:
        raise DataError(f"Expected '{tensor.name}' {expected}, but it ends in {node.op}. {_EXPORT}")


def _factor(node: gs.Node) -> float:
    """The one number that a Mul multiplies by; 0: another node."""
    constants = [x.values for x in node.inputs if isinstance(x, gs.Constant)] if node.op == "Mul" else []
    if len(constants) != 1 or not constants[0].size or np.ptp(constants[0]):
        return 0.0
    return float(constants[0].flat[0])


def _without(graph: gs.Graph, node: gs.Node) -> gs.Variable:
    """Take the node out; its input takes over the name and place of its output."""
    before = next(x for x in node.inputs if isinstance(x, gs.Variable))
    after = node.outputs[0]
    before.name, after.name = after.name, f"finished.{after.name}"
    graph.outputs = [before if tensor is after else tensor for tensor in graph.outputs if tensor is not before]
    node.inputs.clear()
    node.outputs.clear()
    graph.nodes.remove(node)
    return before
