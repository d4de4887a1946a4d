"""BlendMask's core spelled in many ways, as small ONNX graphs of the blender alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_blendmask.surgery.tail_native import interpolation_matrix

K, M, R, BASES_HW, SCALE = 3, 4, 8, (10, 14), 0.25
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


class Nodes:
    """Appends nodes; arrays become constants."""

    def __init__(self, opset: int) -> None:
        self.opset, self.nodes, self.constants = opset, [], []  # type: ignore[var-annotated]

    def add(self, kind: str, *inputs: Any, count: int = 1, **attributes: Any) -> Any:
        names = []
        for value in inputs:
            if not isinstance(value, str):
                self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}"))
                value = self.constants[-1].name
            names.append(value)
        outputs = [f"t{len(self.nodes)}.{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, names, outputs, **attributes))
        return outputs[0] if count == 1 else outputs

    def reshape(self, x: str, *shape: int) -> str:
        return str(self.add("Reshape", x, np.array(shape, np.int64)))

    def reduce(self, kind: str, x: str, axis: int, keepdims: int) -> str:
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            return str(self.add(kind, x, np.array([axis], np.int64), keepdims=keepdims))
        return str(self.add(kind, x, axes=[axis], keepdims=keepdims))


Step = Callable[[Nodes, str], str]


def resized(g: Nodes, x: str, mode: str = "linear", transform: str = "half_pixel") -> str:
    nearest = {"nearest_mode": "floor"} if mode == "nearest" else {}
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform, **nearest}
    sizes = g.add("Concat", g.add("Slice", g.add("Shape", x), [0], [2], [0]), np.array([R, R]), axis=0)
    empty = "" if g.opset >= 13 else np.zeros(0, np.float32)
    return str(g.add("Resize", x, empty, empty, sizes, **attributes))


def resized_by_scales(g: Nodes, x: str) -> str:
    scales = np.array([1, 1, R / M, R / M], np.float32)
    empty = "" if g.opset >= 13 else np.zeros(0, np.float32)
    return str(g.add("Resize", x, empty, scales, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"))


def resized_by_products(g: Nodes, x: str) -> str:
    matrix = interpolation_matrix(M, R, "bilinear")
    return str(g.add("MatMul", np.ascontiguousarray(matrix.T), g.add("MatMul", x, matrix)))


def resized_at_opset_10(g: Nodes, x: str) -> str:
    return str(g.add("Resize", x, np.array([1, 1, R / M, R / M], np.float32), mode="linear"))


def nearest(g: Nodes, x: str) -> str:
    return resized(g, x, "nearest", "asymmetric")


def softmax(g: Nodes, x: str) -> str:
    return str(g.add("Softmax", x, axis=1))


def softmax_last(g: Nodes, x: str) -> str:
    turned = g.add("Softmax", g.add("Transpose", x, perm=[0, 2, 3, 1]), axis=3)
    return str(g.add("Transpose", turned, perm=[0, 3, 1, 2]))


def softmax_of_rows(g: Nodes, x: str) -> str:
    return g.reshape(g.add("Softmax", g.reshape(x, -1, K, R * R), axis=1), -1, K, R, R)


def softmax_spelled(g: Nodes, x: str) -> str:
    exponent = g.add("Exp", g.add("Sub", x, g.reduce("ReduceMax", x, 1, 1)))
    return str(g.add("Div", exponent, g.reduce("ReduceSum", exponent, 1, 1)))


def multiplied(g: Nodes, roi: str, weights: str) -> str:
    return g.reduce("ReduceSum", g.add("Mul", roi, weights), 1, 0)


def multiplied_keeping(g: Nodes, roi: str, weights: str) -> str:
    return g.reduce("ReduceSum", g.add("Mul", weights, roi), 1, 1)


def einsum(g: Nodes, roi: str, weights: str) -> str:
    return str(g.add("Einsum", roi, weights, equation="nkhw,nkhw->nhw"))


def dot_product(g: Nodes, roi: str, weights: str) -> str:
    rows = g.reshape(g.add("Transpose", roi, perm=[0, 2, 3, 1]), -1, 1, K)
    columns = g.reshape(g.add("Transpose", weights, perm=[0, 2, 3, 1]), -1, K, 1)
    return g.reshape(g.add("MatMul", rows, columns), -1, R, R)


def summed_apart(g: Nodes, roi: str, weights: str) -> str:
    rois, parts = (g.add("Split", x, np.ones(K, np.int64), axis=1, count=K) for x in (roi, weights))
    total = g.add("Mul", rois[0], parts[0])
    for a, b in zip(rois[1:], parts[1:], strict=True):
        total = g.add("Add", total, g.add("Mul", a, b))
    return str(total)


def sigmoid(g: Nodes, x: str) -> str:
    return str(g.add("Sigmoid", x))


def as_it_is(_: Nodes, x: str) -> str:
    return x


def boxes_alone(g: Nodes) -> tuple[str, str]:
    zeros = g.add("Cast", g.reduce("ReduceSum", g.add("Mul", "boxes", np.float32(0)), 1, 0), to=INT64)
    return "boxes", zeros


def boxes_joined(g: Nodes) -> tuple[str, str]:
    zeros = g.add("Mul", g.add("Slice", "boxes", [0], [1], [1]), np.float32(0))
    return with_number(g, g.add("Concat", zeros, "boxes", axis=1))


def with_number(g: Nodes, rois: str = "boxes", columns: tuple[int, ...] = (1, 2, 3, 4)) -> tuple[str, str]:
    number = g.add("Cast", g.reshape(g.add("Gather", rois, np.array([0]), axis=1), -1), to=INT64)
    return g.add("Gather", rois, np.array(columns), axis=1), number


def core(
    resize: Step = resized,
    weigh: Step = softmax,
    blend: Callable[[Nodes, str, str], str] = multiplied,
    activate: Step = sigmoid,
    boxes: Callable[[Nodes], tuple[str, str]] = boxes_alone,
    opset: int = 17,
    images: int = 1,
    m: int = M,
    shape: tuple[int, ...] = (-1, R, R),
    flat: tuple[int, ...] = (K * M * M,),
    align: dict[str, Any] | None = None,
    weigh_first: bool = False,
) -> onnx.ModelProto:
    """bases [N, K, Hb, Wb], boxes [n, 4] or [n, 5], attention [n, *flat] -> masks [n, R, R] as `shape` says."""
    g = Nodes(opset)
    four, number = boxes(g)
    attributes: dict[str, Any] = {"output_height": R, "output_width": R, "sampling_ratio": 1, "spatial_scale": SCALE}
    attributes |= {"coordinate_transformation_mode": "half_pixel"} if opset >= 16 else {}
    roi = g.add("RoiAlign", "bases", four, number, **(attributes | (align or {})))
    weights = g.reshape("attention", -1, K, m, m)
    for step in (weigh, resize) if weigh_first else (resize, weigh):
        weights = step(g, weights)
    masks = activate(g, blend(g, roi, weights))
    g.nodes.append(helper.make_node("Reshape", [masks, "shape"], ["masks"]))
    g.constants.append(numpy_helper.from_array(np.array(shape), "shape"))
    columns = 5 if boxes is with_number else 4
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        g.nodes,
        "blender",
        [
            info("bases", FLOAT, (images, K, *BASES_HW)),
            info("boxes", FLOAT, ("n", columns)),
            info("attention", FLOAT, ("n", *flat)),
        ],
        [info("masks", FLOAT, ("n", *shape[1:]))],
        g.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
