"""What a strongly typed float16 file computes, on a machine without float16 arithmetic.

ONNX Runtime's CPU provider computes float16 nodes in float32 and, where casts then stand back to back, drops the
rounding between them: it runs such a file, but shows nothing of its accuracy except what rounded weights cost. Here
every float16 tensor is float32 again and rounded to float16 behind its maker. That is the worst case for TensorRT,
which rounds less often where it fuses.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def rounded_in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the same inputs and outputs."""
    types = _types(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        made = onnx.NodeProto.FromString(node.SerializeToString())
        halves = [k for k, name in enumerate(node.output) if types.get(name) == HALF]
        if node.op_type == "Cast" and halves:
            made = helper.make_node("Identity" if types.get(node.input[0]) in (HALF, FLOAT) else "Cast", node.input, [])
            made.output.append(node.output[0])
            if made.op_type == "Cast":
                made.attribute.append(helper.make_attribute("to", FLOAT))
        for k in halves:
            made.output[k] = f"{node.output[k]}.exact"
        nodes.append(made)
        for k in halves:
            name = node.output[k]
            nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=HALF))
            nodes.append(helper.make_node("Cast", [f"{name}.rounded"], [name], to=FLOAT))
    outputs = []
    for output in model.graph.output:
        if output.type.tensor_type.elem_type == HALF:
            raise ValueError(f"'{output.name}' is float16: give a model with float32 or uint8 masks")
        outputs.append(output)
    constants = [
        numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        if tensor.data_type == HALF
        else tensor
        for tensor in model.graph.initializer
    ]
    graph = helper.make_graph(nodes, model.graph.name, list(model.graph.input), outputs, constants)
    made_model = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    made_model.metadata_props.extend(model.metadata_props)
    return made_model


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        types.setdefault(info.name, info.type.tensor_type.elem_type)
    return types
