"""A deployable ONNX of a few nodes, named as surgery names them: enough for all that does not look inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.structures import METADATA_KEY, ModelSpec

SPEC = ModelSpec("deployable", ("rod",), (64, 96), (8,), num_bases=4, attention_size=14, mask_size=4, max_detections=3)


def write(path: Path, tail: str = "native", batch: int | str = 1, op: str = "Relu", doc: str = "") -> Path:
    """The model; `op` is that of a node in the backbone, "towers.3" of its head."""
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["floats"], "images.float", to=TensorProto.FLOAT),
        node("Transpose", ["floats"], ["planes"], "images.planes", perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "w"], ["features"], "backbone.stem", strides=[16, 16]),
        node(op, ["features"], ["more"], "backbone.res2.conv1"),
        node("Flatten", ["more"], ["rows"], "head.P3.flat"),
        node("MatMul", ["rows", "to_masks"], ["mask_logits"], "tail.product"),
        node("Reshape", ["mask_logits", "mask_shape"], ["shaped"], "tail.planes"),
        _last(tail),
        *(
            node("Identity", [f"{name}0"], [name], f"outputs.{name}")
            for name in ("count", "boxes", "scores", "classes")
        ),
    ]
    constants = {
        "w": np.zeros((4, 3, 16, 16), np.float32),
        "to_masks": np.zeros((4 * 4 * 6, 48), np.float32),
        "mask_shape": np.array([-1, 3, 4, 4]),
        "count0": np.zeros(1, np.int32),
        "boxes0": np.zeros((1, 3, 4), np.float32),
        "scores0": np.zeros((1, 3), np.float32),
        "classes0": np.zeros((1, 3), np.int32),
    }
    ends = [(n, v.dtype, v.shape) for n, v in constants.items() if n[-1] == "0"]
    outputs = [helper.make_tensor_value_info(n[:-1], helper.np_dtype_to_tensor_dtype(d), s) for n, d, s in ends]
    outputs.append(helper.make_tensor_value_info("masks", TensorProto.FLOAT, (batch, 3, 4, 4)))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, (batch, 64, 96, 3))
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("trt_blendmask", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="trt-blendmask", doc_string=doc)
    helper.set_model_props(model, {METADATA_KEY: SPEC.to_json()})
    onnx.save(model, path)
    return path


def _last(tail: str) -> onnx.NodeProto:
    if tail == "native":
        return helper.make_node("Sigmoid", ["shaped"], ["masks"], "tail.masks")
    op = "RoiAlignBlend" if tail == "plugin" else "RoiAlignBlendAot"
    return helper.make_node(op, ["shaped"], ["masks"], "tail.blend", domain="trt_blendmask")
