"""QuantizeLinear and DequantizeLinear go where the plan says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from trt_blendmask.quantize.plan import Plan
from trt_blendmask.quantize.weights import QuantisedWeight
from trt_blendmask.structures import F32

ZERO = "int8.zero"


def place(
    model: onnx.ModelProto,
    plan: Plan,
    scales: Mapping[str, float],
    weights: Mapping[str, QuantisedWeight],
    biases: Mapping[str, F32],
) -> None:
    """Change the float32 `model` in place.

    A tensor has one pair of Q and DQ, which all who read it quantised share; others read it as it is. Weights become
    INT8 constants behind a DQ of their own per convolution.

    Args:
        scales: step of each of the plan's tensors; of a group all the same.
        weights: by the name of the constant that they stand for.
        biases: float32 [O] by the name of the convolution, where it changes.
    """
    placer = _Placer(model.graph, plan, scales, weights)
    layers = {layer.name for layer in plan.layers}
    nodes = [placer.pair(value.name) for value in model.graph.input]
    for node in model.graph.node:
        before = []
        for i, name in enumerate(node.input):
            if (name, node.name) in placer.edges:
                node.input[i] = f"{name}.dq"
        if node.name in layers:
            before = placer.weights_of(node)
            placer.give_bias(node, biases.get(node.name))
        nodes += [before, [node], *(placer.pair(name) for name in node.output)]
    made = [copy for group in nodes for copy in group]
    placer.write(made)


class _Placer:
    def __init__(
        self, graph: onnx.GraphProto, plan: Plan, scales: Mapping[str, float], weights: Mapping[str, QuantisedWeight]
    ) -> None:
        self.graph, self.scales, self.weights = graph, scales, weights
        self.edges = set(plan.edges)
        self.leader = {name: group[0] for group in plan.groups for name in group}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self._constant(ZERO, np.zeros((), np.int8))

    def pair(self, tensor: str) -> list[onnx.NodeProto]:
        """Q and DQ behind the maker of a tensor; none where it is not quantised."""
        if tensor not in self.leader:
            return []
        scale = self._constant(f"{self.leader[tensor]}.scale", np.array(self.scales[tensor], np.float32))
        codes = f"{tensor}.q"
        return [
            helper.make_node("QuantizeLinear", [tensor, scale, ZERO], [codes], codes),
            helper.make_node("DequantizeLinear", [codes, scale, ZERO], [f"{tensor}.dq"], f"{tensor}.dq"),
        ]

    def weights_of(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The DQ of a convolution's weights, which it now reads."""
        weight = node.input[1]
        quantised = self.weights[weight]
        inputs = [
            self._constant(f"{weight}.q", quantised.codes),
            self._constant(f"{weight}.scale", quantised.scales),
            self._constant(f"int8.zeros{len(quantised.scales)}", np.zeros(len(quantised.scales), np.int8)),
        ]
        node.input[1] = f"{node.name}.weight.dq"
        return [helper.make_node("DequantizeLinear", inputs, [node.input[1]], node.input[1], axis=0)]

    def give_bias(self, node: onnx.NodeProto, bias: F32 | None) -> None:
        """A bias of the convolution's own."""
        if bias is None:
            return
        name = self._constant(f"{node.name}.bias.corrected", bias)
        if len(node.input) > 2:
            node.input[2] = name
        else:
            node.input.append(name)

    def write(self, nodes: list[onnx.NodeProto]) -> None:
        """Put the nodes into the graph, with the constants that they use."""
        graph = self.graph
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
        used = {name for node in copies for name in node.input} | {value.name for value in graph.output}
        del graph.initializer[:]
        graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name
