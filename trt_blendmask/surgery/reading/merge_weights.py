"""Equal constants become one, and the large ones travel beside the graph.

Exporters write the head's weights once per level and the constants of every node apart. What reads or rewrites the
graph (the checker, the converter, shape inference) copies all that is in it, so the weights wait outside meanwhile.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from trt_blendmask.errors import DataError
from trt_blendmask.onnx_bounds import inner_graphs

Array = npt.NDArray[Any]
SMALL = 1024  # bytes: shapes, scales and sizes stay in the graph, where shape inference reads them


@dataclass
class _Merger:
    """Reads constants one at a time; the arrays of equal ones are kept once."""

    arrays: dict[str, Array] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of every constant -> of the one that stays
    bytes_before: int = 0
    _seen: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def add(self, name: str, tensor: onnx.TensorProto) -> None:
        if name in self.names:
            raise DataError(f"Expected one constant named '{name}', got two: the file does not hold together.")
        try:
            if min(tensor.dims, default=0) < 0:
                raise ValueError
            values = numpy_helper.to_array(tensor)
            digest = hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest()
        except Exception as error:  # numpy and onnx raise several kinds
            raise DataError(
                f"Expected '{name}' to hold {list(tensor.dims)} values, but it does not: the file does not hold "
                "together. Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
            ) from error
        self.bytes_before += values.nbytes
        kept = self._seen.setdefault((str(values.dtype), values.shape, digest), name)
        self.names[name] = kept
        if kept == name:
            self.arrays[name] = values


@dataclass(frozen=True)
class Weights:
    """The large constants by name; how many constants there were and are, and their bytes."""

    arrays: dict[str, Array]
    constants_before: int
    constants_after: int
    bytes_before: int
    bytes_after: int

    @property
    def sentence(self) -> str:
        """What was merged; empty: nothing."""
        merged = self.constants_before - self.constants_after
        if not merged:
            return ""
        before, after = self.bytes_before / 1e6, self.bytes_after / 1e6
        return f"{merged} of {self.constants_before} constants were copies of others: {before:.1f} -> {after:.1f} MB"


def take_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Weights]:
    """A model without its large weights (graph inputs stand for them), without copies and without Constant nodes.

    Raises:
        DataError: a constant that does not hold what it declares, or two of one name.
    """
    merger = _Merger()
    for tensor in model.graph.initializer:
        merger.add(tensor.name, tensor)
    nodes = []
    for node in model.graph.node:
        tensor = constant_of(node)
        if tensor is None:
            nodes.append(node)
        else:
            merger.add(node.output[0], tensor)
    outputs = {output.name for output in model.graph.output}
    large = {n: a for n, a in merger.arrays.items() if a.nbytes > SMALL and n not in outputs}
    light = _without(model, nodes, merger, large)
    total = sum(array.nbytes for array in merger.arrays.values())
    return light, Weights(large, len(merger.names), len(merger.arrays), merger.bytes_before, total)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which inputs stand for the large constants: checker and inference copy their model, more than once."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    named = {tensor.name for tensor in model.graph.initializer}
    light.graph.input.extend(value for value in model.graph.input if value.name not in named)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > SMALL:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    return light


def constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None: another node, or a constant of strings or of a sparse tensor."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or not node.attribute or not node.output:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return attribute.t
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name not in kinds:
        return None
    values = np.array(onnx.helper.get_attribute_value(attribute), kinds[attribute.name])
    return numpy_helper.from_array(values, node.output[0])


def rename_inputs(nodes: Any, names: dict[str, str]) -> None:
    """Let nodes read other tensors, those of inner graphs included."""
    for node in nodes:
        for i, name in enumerate(node.input):
            if names.get(name, name) != name:
                node.input[i] = names[name]
        for inner in inner_graphs(node):
            own = {tensor.name for tensor in (*inner.initializer, *inner.input)}
            own.update(name for inner_node in inner.node for name in inner_node.output)
            rename_inputs(inner.node, {old: new for old, new in names.items() if old not in own})


def _without(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], merger: _Merger, large: dict[str, Array]
) -> onnx.ModelProto:
    light = onnx.ModelProto()
    light.opset_import.extend(model.opset_import)
    light.metadata_props.extend(model.metadata_props)
    graph = light.graph
    graph.name = model.graph.name or "graph"
    graph.input.extend(value for value in model.graph.input if value.name not in merger.names)
    graph.output.extend(model.graph.output)
    outputs = {output.name for output in graph.output}
    for name, values in merger.arrays.items():
        if name in large:
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, values.shape))
        else:
            graph.initializer.append(numpy_helper.from_array(values, name))
    for name in outputs & {name for name, kept in merger.names.items() if kept != name}:
        graph.initializer.append(numpy_helper.from_array(merger.arrays[merger.names[name]], name))
    graph.node.extend(nodes)
    rename_inputs(graph.node, merger.names)
    return light
