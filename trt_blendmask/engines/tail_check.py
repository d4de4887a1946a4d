"""The tail of a deployable graph on its own: it builds in seconds, the whole graph takes minutes to be refused."""

from __future__ import annotations

from pathlib import Path

import onnx

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.macs import part_of
from trt_blendmask.surgery.reading.merge_weights import without_weights


def tail_alone(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The nodes behind `masks` that surgery made for the tail; what they read of the others are its inputs.

    Raises:
        DataError: there are none by their names, or a tensor's type is not known.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes: dict[str, onnx.NodeProto] = {}
    ends: dict[str, None] = {}
    open_names = ["masks"]
    while open_names:
        name = open_names.pop()
        node = makers.get(name)
        if node is not None and (name == "masks" or part_of(node.name, []) == "tail"):
            if node.output[0] not in nodes:
                nodes[node.output[0]] = node
                open_names += [each for each in node.input if each]
        elif name not in constants:
            ends[name] = None
    if len(nodes) < 2 and not any(node.domain for node in nodes.values()):
        raise DataError(
            f"Expected the tail that surgery makes in '{path}', but no node before 'masks' is named so: leave "
            "--tail-check out."
        )
    return _model(model, [node for node in model.graph.node if node.output[0] in nodes], list(ends), path)


def _model(whole: onnx.ModelProto, nodes: list[onnx.NodeProto], ends: list[str], path: Path) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(without_weights(whole), data_prop=True).graph
    known = {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    if missing := [name for name in (*ends, "masks") if name not in known]:
        raise DataError(f"Expected types throughout '{path}', but that of '{missing[0]}' is not known.")
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in whole.graph.initializer if tensor.name in read]
    graph = onnx.helper.make_graph(nodes, "tail", [known[name] for name in ends], [known["masks"]], weights)
    return onnx.helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
