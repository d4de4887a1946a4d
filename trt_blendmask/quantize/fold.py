"""What scales and shifts each channel behind a convolution becomes part of its weights.

A head with one batch norm per level ("bn-head") has one set of weights for all levels and a Mul and an Add of its own
behind each convolution; INT8 needs them gone, and the price is weights per level. Other exporters leave a
BatchNormalization behind a deformable convolution. A group norm is none of these: it stays.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from trt_blendmask.structures import F32

AFFINE = {"Mul", "Add", "BatchNormalization"}


def fold_affine(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which such nodes are folded; what they made keeps its name and is made by the convolution."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    gone: list[int] = []
    for index, node in enumerate(graph.node):
        data = [name for name in node.input if name not in constants]
        conv = makers.get(data[0]) if node.op_type in AFFINE and len(data) == 1 else None
        if conv is None or readers[data[0]] != 1 or conv.input[1] not in constants:
            continue
        if len(conv.input) > 2 and conv.input[2] and conv.input[2] not in constants:
            continue
        weight = numpy_helper.to_array(constants[conv.input[1]])
        affine = _affine(node, constants, len(weight))
        if affine is None:
            continue
        scale, shift = affine
        bias = numpy_helper.to_array(constants[conv.input[2]]) if len(conv.input) > 2 and conv.input[2] else 0
        weight = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        _replace(conv, constants, {1: ("weight", weight), 2: ("bias", (bias * scale + shift).astype(np.float32))})
        conv.output[0] = node.output[0]
        makers[node.output[0]] = conv
        gone.append(index)
    for index in reversed(gone):
        del graph.node[index]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
    return folded


def _affine(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], channels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Scale and shift of each channel, float64 [C]; None: it does something else."""
    values = [numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input if name in constants]
    if node.op_type == "BatchNormalization":
        if len(values) != 4 or len(node.output) != 1:
            return None
        gamma, beta, mean, variance = values
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gamma / np.sqrt(variance + epsilon)
        return scale, beta - mean * scale
    vector = _per_channel(values[0], channels)
    if vector is None:
        return None
    return (vector, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), vector)


def _per_channel(values: npt.NDArray[Any], channels: int) -> npt.NDArray[np.float64] | None:
    """[C] of a constant that applies to [N, C, H, W] by channel: a number, [C, 1, 1] or [1, C, 1, 1]."""
    if values.size == 1 and values.ndim <= 4:
        return np.full(channels, values.reshape(()).item(), np.float64)
    return values.reshape(-1) if values.shape in {(channels, 1, 1), (1, channels, 1, 1)} else None


def _replace(conv: onnx.NodeProto, constants: dict[str, onnx.TensorProto], inputs: dict[int, tuple[str, F32]]) -> None:
    """Give the convolution constants of its own."""
    for index, (what, values) in inputs.items():
        name = f"{conv.name}.{what}"
        while name in constants:
            name += ".folded"
        constants[name] = numpy_helper.from_array(values, name)
        if index < len(conv.input):
            conv.input[index] = name
        else:
            conv.input.append(name)
