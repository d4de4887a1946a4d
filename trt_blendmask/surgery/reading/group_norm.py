"""Group norm as one unit: five nodes with names of their own, as our exporter writes them.

ONNX has no GroupNormalization below opset 18, so exporters spell it Reshape, InstanceNormalization, Reshape, Mul, Add;
newer ones use the op, which opset 17 lacks. Here all become `X.norm.split`, `X.norm`, `X.norm.join`, `X.norm.scale`
and `X.norm.shift`, X being the convolution before: what chooses precisions or counts nodes sees one thing by its name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from trt_blendmask.surgery.reading.merge_weights import Array

PARTS = (".split", "", ".join", ".scale", ".shift")


@dataclass(frozen=True)
class GroupNorm:
    """The five nodes of one unit in their order; gamma and beta float32 [C]."""

    nodes: tuple[gs.Node, gs.Node, gs.Node, gs.Node, gs.Node]
    groups: int
    gamma: Array
    beta: Array

    @property
    def data(self) -> gs.Tensor:
        return self.nodes[0].inputs[0]


def unify_group_norms(graph: gs.Graph) -> int:
    """Bring every group norm into the canonical form and names; returns how many there are."""
    units = [unit for node in graph.nodes if (unit := match_group_norm(node)) is not None]
    taken = {node.name for node in graph.nodes} | graph.tensors().keys()
    outputs = {id(tensor) for tensor in graph.outputs}
    for unit in units:
        name = _name(unit, taken)
        shape = unit.data.shape
        split, norm, join, scale, shift = unit.nodes
        split.inputs[1] = gs.Constant(f"{name}.split_shape", np.array([0, unit.groups, -1], np.int64))
        split.outputs[0].shape = norm.outputs[0].shape = (shape[0], unit.groups, math.prod(shape[1:]) // unit.groups)
        join.inputs[1] = gs.Constant(f"{name}.join_shape", np.array([0, *shape[1:]], np.int64))
        for node, values, what in ((scale, unit.gamma, "weight"), (shift, unit.beta, "bias")):
            data = next(x for x in node.inputs if isinstance(x, gs.Variable))
            constant = next(x for x in node.inputs if isinstance(x, gs.Constant))
            if constant.values.shape != (values.size, 1, 1):
                constant = gs.Constant(f"{name}.{what}", values.reshape(-1, 1, 1))
            node.inputs = [data, constant]
        for node, part in zip(unit.nodes, PARTS, strict=True):
            node.name = f"{name}{part}"
            if id(node.outputs[0]) not in outputs:
                node.outputs[0].name = node.name
    return len(units)


def match_group_norm(node: gs.Node) -> GroupNorm | None:
    """The unit whose InstanceNormalization is `node`; None: it is none, or not one that stands for itself."""
    if node.op != "InstanceNormalization":
        return None
    if not _is_constant(node.inputs[1], 1.0) or not _is_constant(node.inputs[2], 0.0):
        return None
    split = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    join = _only_reader(node)
    if split is None or split.op != "Reshape" or len(split.outputs[0].outputs) != 1 or join is None:
        return None
    data, groups = split.inputs[0], len(node.inputs[1].values)
    if join.op != "Reshape" or data.shape is None or len(data.shape) != 4 or join.outputs[0].shape != data.shape:
        return None
    if not all(isinstance(n, int) and n > 0 for n in data.shape) or data.shape[1] % groups:
        return None
    between = split.outputs[0].shape
    if between is None or list(between[:2]) != [data.shape[0], groups]:
        return None
    scale = _only_reader(join)
    gamma = _per_channel(scale, "Mul", data.shape)
    shift = _only_reader(scale) if scale is not None and gamma is not None else None
    beta = _per_channel(shift, "Add", data.shape)
    if gamma is None or beta is None:
        return None
    return GroupNorm((split, node, join, scale, shift), groups, gamma, beta)


def _is_constant(tensor: gs.Tensor, value: float) -> bool:
    return isinstance(tensor, gs.Constant) and bool((np.asarray(tensor.values) == value).all())


def _only_reader(node: gs.Node) -> gs.Node | None:
    readers = node.outputs[0].outputs
    return readers[0] if len(readers) == 1 else None


def _per_channel(node: gs.Node | None, op: str, shape: Any) -> Array | None:
    """The constant of C values that `node` applies to [N, C, H, W], float32 [C]."""
    if node is None or node.op != op or len(node.inputs) != 2:
        return None
    constants = [x for x in node.inputs if isinstance(x, gs.Constant)]
    if len(constants) != 1:
        return None
    values, channels = np.asarray(constants[0].values), shape[1]
    fits = values.size == channels and (channels == 1 or values.shape[-3:] == (channels, 1, 1))
    return values.reshape(channels) if fits and values.dtype == np.float32 else None


def _name(unit: GroupNorm, taken: set[str]) -> str:
    before = unit.data.inputs[0].name if unit.data.inputs else unit.data.name
    name = base = f"{before or unit.data.name}.norm"
    number = 1
    while any(f"{name}{part}" in taken for part in PARTS) and name != unit.nodes[1].name:
        number += 1
        name = f"{base}{number}"
    taken.update(f"{name}{part}" for part in PARTS)
    return name


def spell_out_group_norms(model: onnx.ModelProto, opset: int) -> int:
    """Replace GroupNormalization nodes, in place, before the arithmetic on shapes is folded; returns how many."""
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        if node.op_type != "GroupNormalization" or node.domain not in ("", "ai.onnx") or len(node.input) != 3:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        nodes += _spelled_out(node, node.name or f"group_norm.{count}", per_channel=opset >= 21)
        count += 1
    if count:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return count


def _spelled_out(node: onnx.NodeProto, name: str, per_channel: bool) -> list[onnx.NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    groups, epsilon = int(attributes.get("num_groups", 0)), float(attributes.get("epsilon", 1e-5))
    (data, gamma, beta), result = node.input, node.output[0]
    made: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], output: str, **attrs: Any) -> str:
        made.append(helper.make_node(op, inputs, [output], output, **attrs))
        return output

    def constant(part: str, values: Array) -> str:
        return add("Constant", [], f"{name}.{part}", value=numpy_helper.from_array(values))

    shape = constant("split_shape", np.array([0, groups, -1], np.int64))
    ones, zeros = (constant(part, np.full(groups, v, np.float32)) for part, v in (("ones", 1), ("zeros", 0)))
    y = add("Reshape", [data, shape], f"{name}.split")
    # Up to opset 20 gamma and beta are per group, which is what InstanceNormalization itself has.
    weights = [ones, zeros] if per_channel else [gamma, beta]
    y = add("InstanceNormalization", [y, *weights], f"{name}.norm", epsilon=epsilon)
    joined = f"{name}.join" if per_channel else result
    y = add("Reshape", [y, add("Shape", [data], f"{name}.shape")], joined)
    if per_channel:
        axes = constant("axes", np.array([1, 2], np.int64))
        y = add("Mul", [y, add("Unsqueeze", [gamma, axes], f"{name}.weight")], f"{name}.scale")
        add("Add", [y, add("Unsqueeze", [beta, axes], f"{name}.bias")], result)
    return made
