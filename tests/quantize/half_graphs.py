"""A small deployable graph around single ends of the typing, and the types of a graph's tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.structures import METADATA_KEY, ModelSpec

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info, *graph.output)}
    return {**types, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def small_model(path: Path, gain: float = 1.0, factor: float = 1.0, **spec: Any) -> Path:
    """A deployable file whose `masks` are sigmoid(gain * factor * 1e-3 * * the sum of three pixels)."""
    weight = np.full((1, 3, 1, 1), gain, np.float32)
    slots = np.zeros((1, 2), np.float32)
    constants = {"weight": weight, "factor": np.array(factor, np.float32), "shape": np.array([1, 2, 4, 4])}
    constants |= {"small": np.full((1, 1, 1, 1), 1e-3, np.float32), "row": np.array([1, 3, 8, 4])}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], "float", to=FLOAT),
        helper.make_node("Reshape", ["float", "row"], ["planes"], "planes"),
        helper.make_node("Conv", ["planes", "weight"], ["large"], "large"),
        helper.make_node("Mul", ["large", "factor"], ["scaled"], "scaled"),
        helper.make_node("Conv", ["scaled", "small"], ["tame"], "tame"),
        helper.make_node("Reshape", ["tame", "shape"], ["logits"], "logits"),
        helper.make_node("Sigmoid", ["logits"], ["masks"], "masks"),
    ]
    fixed = {"boxes": np.zeros((1, 2, 4), np.float32), "scores": slots, "classes": slots.astype(np.int32)}
    fixed["count"] = np.zeros(1, np.int32)
    for name, values in fixed.items():
        constants[f"{name}.value"] = values
        nodes.append(helper.make_node("Identity", [f"{name}.value"], [name], name))
    outputs = [helper.make_tensor_value_info("masks", FLOAT, (1, 2, 4, 4))]
    outputs += [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in fixed.items()
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, (1, 8, 4, 3))
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "small", [images], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = {"kind": "deployable", "class_names": ("nut",), "input_hw": (8, 4), "strides": (8,), "num_bases": 4}
    values |= {"attention_size": 7, "max_detections": 2, "mask_size": 4, "input_dtype": "uint8"}
    text = ModelSpec(**{**values, "mask_dtype": "float32", **spec}).to_json()
    helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    return path
