"""What an ONNX file may ask of this machine, judged before a library inlines, folds or runs it.

A few hundred bytes of ONNX can unfold to terabytes: functions that call one another, constants that are expanded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx

from trt_blendmask.errors import DataError

MAX_NODES = 50_000  # forty times what R_101 has
MAX_RANK = 16
MAX_TENSOR_BYTES = 1 << 29
LARGE_BYTES = 1 << 10  # weights above this are no arithmetic on shapes
_SIZED_BY_VALUES = {"ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot", "EyeLike"}
_FOLLOWED = {"Add", "Sub", "Mul", "Cast", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"}  # value by value
_EIGHT_BYTES = (onnx.TensorProto.INT64, onnx.TensorProto.UINT64, onnx.TensorProto.DOUBLE)
PLUGIN_DOMAIN = "trt_blendmask"
_MADE_AFRESH = "Make the file again: trt-blendmask surgery raw.onnx -o model.onnx"


def check_parts(model: onnx.ModelProto, path: Path) -> None:
    """Refuse weights in other files, functions or nodes without end, and names that are not text.

    Raises:
        DataError: there is one.
    """
    graphs = [model.graph, *(info.algorithm for info in model.training_info)]
    graphs += [onnx.GraphProto(node=function.node) for function in model.functions]
    for tensor in (tensor for graph in graphs for tensor in _tensors(graph)):
        if len(tensor.dims) > MAX_RANK:
            raise DataError(
                f"Expected at most {MAX_RANK} dimensions in '{path}', but {tensor.name!r:.80} has {len(tensor.dims)}. "
                "Copy or download it again."
            )
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise DataError(
                f"Expected all weights inside '{path}', but {tensor.name!r:.80} points to another file, which is "
                "never followed. Save it in one file: onnx.save(onnx.load(F), G)"
            )
    nodes = _count_nodes(model)
    if nodes > MAX_NODES:
        count = f"{nodes:.0f}" if nodes < 1e9 else "endless"
        raise DataError(
            f"Expected a network of at most {MAX_NODES} nodes, but '{path}' has {count}. Export it again, without "
            "functions that call one another."
        )
    names = [value.name for graph in graphs for value in (*graph.initializer, *graph.input, *graph.output)]
    names += [text for graph in graphs for node in nodes_of(graph) for text in (node.name, *node.input, *node.output)]
    if not all(isinstance(text, str) for text in names):  # protobuf gives bytes that are no UTF-8 as they are
        raise DataError(f"Expected names in UTF-8, but '{path}' has others: it is damaged. Copy or download it again.")
    for graph in graphs:
        _check_shape_values(graph, path)


def check_runnable(content: bytes, path: Path) -> onnx.ModelProto:
    """Refuse a model that cannot be run as it stands within a bounded memory.

    Values that do not depend on the input are computed and kept when the model is loaded; a file may hold no more of
    them than some multiple of its weights, and no single tensor of more than 512 MiB.

    Returns:
        The model without the data of its large weights, for looking at.

    Raises:
        DataError: no ONNX file, or what `check_parts` refuses, or one that unfolds too far.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError(
            f"Expected an ONNX model, but '{path}' is no ONNX file, or cut short. {_MADE_AFRESH}"
        ) from error
    check_parts(model, path)
    if any(node.domain == PLUGIN_DOMAIN for node in model.graph.node):
        raise DataError(
            f"'{path}' was made for TensorRT with a layer of our own (--tail plugin or aot), which ONNX Runtime does "
            "not have. Type: trt-blendmask surgery raw.onnx --tail native -o model.onnx"
        )
    if model.functions:
        raise DataError(f"Expected a deployable ONNX, but '{path}' has functions of its own. {_MADE_AFRESH}")
    divisors = {node.input[1] for node in model.graph.node if node.op_type in ("Div", "Mod") and len(node.input) == 2}
    for tensor in model.graph.initializer:
        if tensor.name in divisors and _divides_badly(tensor):
            raise DataError(
                f"Expected numbers to divide by, but '{path}' divides whole numbers by 0 or -1. {_MADE_AFRESH}"
            )
        if len(tensor.raw_data) > LARGE_BYTES:
            tensor.ClearField("raw_data")  # shapes are all that is looked at: a small copy for the inference
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # onnx raises several kinds, some from C++
        raise DataError(f"'{path}' is an ONNX file that does not hold together. {_MADE_AFRESH}") from error
    _check_sizes(model, path, len(content))
    return model


def _check_shape_values(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse a row of Concats that doubles a vector: onnx's shape inference writes out the values of each."""
    lengths = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer if len(tensor.dims) <= 1}
    for node in graph.node:
        known = [lengths.get(name, 1) for name in node.input]
        length = sum(known) if node.op_type == "Concat" else max(known, default=1) if node.op_type in _FOLLOWED else 1
        lengths.update(dict.fromkeys(node.output, length))
        if length > MAX_NODES * 20:
            raise DataError(
                f"Expected arithmetic on shapes in '{path}', but node {node.name!r:.80} joins {length} numbers. "
                "Export it again."
            )


def _check_sizes(model: onnx.ModelProto, path: Path, file_bytes: int) -> None:
    graph = model.graph
    sizes = {value.name: _bytes(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    constant = {tensor.name for tensor in graph.initializer} | {""}
    allowed = float(MAX_TENSOR_BYTES // 8 + 8 * file_bytes)  # unpacked, int8 weights are four times as large
    for node in graph.node:
        fixed = node.op_type in ("Shape", "Size") or constant.issuperset(node.input)
        for name in filter(None, node.output):
            size = sizes.get(name, math.inf)
            if fixed:
                constant.add(name)
                allowed -= min(size, 1 << 60)
            unfolds = size != math.inf or fixed or node.op_type in _SIZED_BY_VALUES
            if (unfolds and size > MAX_TENSOR_BYTES) or allowed < 0:
                asked = f"{size / 1e9:.1f} GB" if size != math.inf else "an unknown size"
                raise DataError(
                    f"Expected a model that fits into memory, but '{path}' asks for {asked} in {name!r:.80} "
                    f"({node.op_type}). {_MADE_AFRESH}"
                )


def _bytes(value: onnx.ValueInfoProto) -> float:
    """Size of a tensor, infinity where it is not known; small types count as four bytes, as they may be unpacked."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in tensor.shape.dim):
        return math.inf
    return float(math.prod(d.dim_value for d in tensor.shape.dim) * (8 if tensor.elem_type in _EIGHT_BYTES else 4))


def _divides_badly(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in (onnx.TensorProto.INT32, onnx.TensorProto.INT64) or math.prod(tensor.dims) > LARGE_BYTES:
        return False
    try:
        return bool(np.isin(onnx.numpy_helper.to_array(tensor), (0, -1)).any())
    except Exception:  # its data does not fit its shape
        return True


def _count_nodes(model: onnx.ModelProto) -> float:
    """Nodes of the graph once all functions are written out; infinity where they call themselves."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    known: dict[tuple[str, str], float] = {}

    def count(nodes: Iterable[onnx.NodeProto], depth: int) -> float:
        if depth > 100:
            return math.inf
        total = 0.0
        for node in nodes:
            total += 1 + sum(count(graph.node, depth + 1) for graph in inner_graphs(node))
            key = (node.domain, node.op_type)
            if key in bodies:
                if key not in known:
                    known[key] = math.inf  # while it is being counted: if it is met again, it calls itself
                    known[key] = count(bodies[key], depth + 1)
                total += known[key]
        return total

    return count(model.graph.node, 0)


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside `If`, `Loop` and `Scan`."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Its nodes, and those inside of them."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from nodes_of(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for inner in inner_graphs(node):
            yield from _tensors(inner)
