"""Reading an ONNX file that may be anything, and writing ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.inliner
import onnx.version_converter

from trt_blendmask import __version__
from trt_blendmask.errors import DataError
from trt_blendmask.files import atomic_output, existing_file
from trt_blendmask.structures import METADATA_KEY, ModelSpec

OLDEST_OPSET, OPSET = 11, 17
OLDEST_IR = 8  # that of opset 17; before 4 every weight had to be a graph input
PRODUCER = "trt-blendmask"
_HINT = "Give the raw.onnx that 'trt-blendmask export' or AdelaiDet's export_model_to_onnx.py writes."
_FIXED_SHAPES_BAR = {"If", "Loop", "Scan", "NonMaxSuppression", "NonZero"}


def load_raw(path: Path) -> onnx.ModelProto:
    """Read an ONNX model of standard ops with its weights inside, at opset 17 or later.

    Raises:
        InputMissingError: no such file.
        DataError: empty, truncated, no ONNX, weights in other files, ops that are unknown or cannot have fixed shapes.
    """
    file = existing_file(path, "a raw-head ONNX", _HINT)
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError(f"Expected a raw-head ONNX, but '{path}' is no ONNX file, or cut short. {_HINT}") from error
    if not model.ir_version or not model.graph.node:
        raise DataError(f"Expected a raw-head ONNX, but '{path}' holds no network. {_HINT}")
    _check_weights_inside(model, path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_ops(model, path)
    return _at_opset_17(model, path)


def save(model: onnx.ModelProto, spec: ModelSpec, output: Path) -> int:
    """Write `model` with `spec` as its metadata, the same bytes for the same model; returns their number.

    Raises:
        OutputError: cannot be written. DataError: over protobuf's 2 GiB.
    """
    model.producer_name, model.producer_version = PRODUCER, __version__
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    try:
        data = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError("The model exceeds 2 GiB, which no ONNX file without external data can hold.") from error
    with atomic_output(output) as temporary:
        temporary.write_bytes(data)
    return len(data)


def metadata(model: onnx.ModelProto) -> str:
    """Our metadata JSON, "" where there is none."""
    return next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), "")


def _check_weights_inside(model: onnx.ModelProto, path: Path) -> None:
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise DataError(
                f"Expected all weights inside '{path}', but '{tensor.name}' points to another file, which is never "
                "followed. Save it in one file: onnx.save(onnx.load(F), G)"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _check_ops(model: onnx.ModelProto, path: Path) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise DataError(
                f"Expected standard ONNX ops in '{path}', but node '{node.name}' is {node.domain}::{node.op_type}. "
                "Export it without custom ops."
            )
        if node.op_type in _FIXED_SHAPES_BAR:
            raise DataError(
                f"Expected a raw-head ONNX, but node '{node.name}' of '{path}' is {node.op_type}, whose shapes depend "
                f"on the data: the file goes beyond the heads. {_HINT}"
            )


def _at_opset_17(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise DataError(
            f"Expected ONNX opset {OLDEST_OPSET} to {newest}, but '{path}' has opset {opset}"
            f"{' (whose Upsample runtimes read differently)' if opset < OLDEST_OPSET else ''}. "
            "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
        )
    del model.opset_import[:]  # of domains that no node uses, which runtimes may not know
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    if opset >= OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # the C++ converter raises what it likes
        raise DataError(
            f"'{path}' has opset {opset} and cannot be brought to {OPSET}: {str(error).splitlines()[0]}. "
            "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
        ) from error
