"""What float16 cannot hold: constants, by looking; activations, by running the float32 graph on pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.errors import DataError
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN
from trt_blendmask.quantize.types import FloatGraph

LARGEST = 65504.0  # of float16
LIMIT = LARGEST / 4  # for activations: pictures that were not seen reach further
LOST = 2.0**-8  # relative error of a constant; rounding alone causes less than 2**-11, the rest are values below 6e-5


def unfit_constants(graph: FloatGraph, names: Collection[str]) -> dict[str, str]:
    """Those of the float32 constants `names` that float16 cannot hold, with the reason."""
    found = {}
    for tensor in graph.graph.initializer:
        if tensor.name in names and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            largest = float(np.abs(values[np.isfinite(values)]).max(initial=0))
            if largest > LARGEST:
                found[tensor.name] = f"a constant that reaches {largest:.6g}"
            elif _error(values) > LOST:
                found[tensor.name] = f"a constant of at most {largest:.1e}, too small for float16"
    return found


def _error(values: npt.NDArray[np.float32]) -> float:
    finite = values[np.isfinite(values)].ravel()
    size = float(np.linalg.norm(finite))
    return float(np.linalg.norm(finite.astype(np.float16).astype(np.float32) - finite)) / size if size else 0.0


class Largest:
    """The largest |x| of each of the activations `names` over all pictures that `see` is given.

    Only two numbers of each leave ONNX Runtime; nodes behind the plugin, which it does not have, are not observed.
    """

    def __init__(self, model: onnx.ModelProto, names: Collection[str]) -> None:
        self.values: dict[str, float] = {}
        extended, self._names = _with_extremes(model, names)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "extremes.onnx"
            onnx.save(extended, path)
            self._session = OnnxRuntimeSession(path)

    def see(self, images: npt.NDArray[Any]) -> None:
        """Run the network on its input.

        Raises:
            DataError: an activation is NaN or infinite.
        """
        found = self._session.run(images)["extremes"].astype(np.float64)
        for name, (low, high, total) in zip(self._names, found.reshape(-1, 3), strict=True):
            if not np.isfinite([low, high, total]).all():
                raise DataError(
                    f"Expected numbers, but the activation '{name}' is NaN or infinite in float32 already: the "
                    "checkpoint is broken. Take another one."
                )
            self.values[name] = max(self.values.get(name, 0.0), -low, high)


def too_large(largest: Mapping[str, float]) -> dict[str, str]:
    """The activations beyond `LIMIT`, with the reason."""
    return {name: f"reaches {value:.6g}" for name, value in largest.items() if value > LIMIT}


def _with_extremes(model: onnx.ModelProto, names: Collection[str]) -> tuple[onnx.ModelProto, list[str]]:
    """A graph whose one output holds least, largest and sum of each activation, and their order."""
    graph = model.graph
    unknown = {name for node in graph.node if node.domain == PLUGIN_DOMAIN for name in node.output}
    made = [value.name for value in graph.input]
    for node in graph.node:
        unknown.update(node.output if unknown.intersection(node.input) else ())
        made += [name for name in node.output if name not in unknown]
    wanted = [name for name in made if name in names]
    nodes = _needed(graph, set(wanted))
    parts = []
    for i, name in enumerate(wanted):
        for op in ("ReduceMin", "ReduceMax", "ReduceSum"):  # a sum of NaN is NaN, which an extreme need not be
            parts.append(f"extreme.{op}.{i}")
            nodes.append(helper.make_node(op, [name], [f"{parts[-1]}.whole"], keepdims=0))
            nodes.append(helper.make_node("Reshape", [f"{parts[-1]}.whole", "extreme.row"], [parts[-1]]))
    nodes.append(helper.make_node("Concat", parts, ["extremes"], axis=0))
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "extreme.row"))
    output = helper.make_tensor_value_info("extremes", TensorProto.FLOAT, [len(parts)])
    made_graph = helper.make_graph(nodes, "extremes", list(graph.input), [output], constants)
    return helper.make_model(made_graph, opset_imports=model.opset_import, ir_version=model.ir_version), wanted


def _needed(graph: onnx.GraphProto, wanted: set[str]) -> list[onnx.NodeProto]:
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
