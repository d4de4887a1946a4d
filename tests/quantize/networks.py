"""Deployable graphs to quantise: of the reference checkpoints, of AdelaiDet's own files, and drawn ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from trt_blendmask.export import export_onnx
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.structures import CalibrationTable
from trt_blendmask.surgery import SurgeryOptions, operate

F32 = npt.NDArray[np.float32]


def deployable(reference: Path, name: str, folder: Path) -> onnx.ModelProto:
    """The graph of "550_r50", "rt_r50" or "dla34_small"; with "foreign " before it, of AdelaiDet's exporter's file."""
    family = name.split()[-1]
    source = reference / "end_to_end" / family
    raw = reference / "onnx" / f"{family}_legacy.onnx"
    options = SurgeryOptions(max_detections=12, config=source / "config_full.yaml")
    if not name.startswith("foreign"):
        raw, options = folder / "raw.onnx", SurgeryOptions(max_detections=12)
        export_onnx(source / "model_plain.pth", source / "config_full.yaml", raw, (128, 160))
    operate(raw, folder / "model.onnx", options)
    return onnx.load(folder / "model.onnx")


def table_of(model: onnx.ModelProto, threshold: float = 4.0) -> CalibrationTable:
    """One threshold for all."""
    return CalibrationTable("0" * 64, "mse", dict.fromkeys(read_plan(model).tensors, threshold), (), {})


def chain(weights: Iterable[F32], input_hw: tuple[int, int] = (9, 11)) -> onnx.ModelProto:
    """x [1, C, H, W] -> Conv conv0 -> Relu relu0 -> Conv conv1 -> ... without biases; the last Conv makes y."""
    kernels = list(weights)
    nodes, tensor = [], "x"
    for i, kernel in enumerate(kernels):
        last = i == len(kernels) - 1
        pads = [kernel.shape[2] // 2] * 4
        nodes.append(helper.make_node("Conv", [tensor, f"w{i}"], ["y" if last else f"c{i}"], f"conv{i}", pads=pads))
        if not last:
            nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"))
        tensor = f"r{i}"
    return model_of(nodes, {f"w{i}": kernel for i, kernel in enumerate(kernels)}, (1, kernels[0].shape[1], *input_hw))


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, F32], shape: tuple[int, ...]) -> onnx.ModelProto:
    """A float32 graph from x to y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: npt.NDArray[np.generic], *tensors: str) -> list[F32]:
    """Values of tensors for the only input."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, None) for t in tensors)
    session = ort.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(list(tensors), {model.graph.input[0].name: x}))
