"""Reading an ONNX file that may be anything, and writing ours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner

from trt_blendmask import __version__
from trt_blendmask.errors import DataError
from trt_blendmask.files import atomic_output, existing_file
from trt_blendmask.onnx_bounds import check_parts
from trt_blendmask.structures import METADATA_KEY, ModelSpec
from trt_blendmask.surgery.reading.external import take_inside
from trt_blendmask.surgery.reading.merge_weights import Weights, take_weights
from trt_blendmask.surgery.reading.opset import OLDEST_OPSET, opset_of

OLDEST_IR = 8  # that of opset 17; before 4 every weight had to be a graph input
PRODUCER = "trt-blendmask"
_HINT = "Give the raw.onnx that 'trt-blendmask export' or AdelaiDet's export_model_to_onnx.py writes."
_FLOAT32 = "Surgery comes before quantize: give the float32 file that it was made from."
_QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "DequantizeLinear"}
_FIXED_SHAPES_BAR = {"If", "Loop", "Scan", "NonMaxSuppression", "NonZero"}


@dataclass(frozen=True)
class Loaded:
    """A file's model, and its large weights beside it: in the model they are inputs."""

    model: onnx.ModelProto
    weights: Weights


def load_raw(path: Path) -> Loaded:
    """Read an ONNX model of standard ops, its weights inside or in a file beside it, at the opset of the file.

    Raises:
        InputMissingError: no such file.
        DataError: empty, truncated, no ONNX, weights elsewhere, ops that are unknown or cannot have fixed shapes.
    """
    file = existing_file(path, "a raw-head ONNX", _HINT)
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError(f"Expected a raw-head ONNX, but '{path}' is no ONNX file, or cut short. {_HINT}") from error
    if not model.ir_version or not model.graph.node:
        raise DataError(f"Expected a raw-head ONNX, but '{path}' holds no network. {_HINT}")
    take_inside(model, file)
    check_parts(model, path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
        check_parts(model, path)
    _check_ops(model, path)
    _check_opset(model, path)
    loaded = Loaded(*take_weights(model))
    _check_numbers(loaded.weights, path)
    return loaded


def save(models: Mapping[Path, onnx.ModelProto], spec: ModelSpec | None) -> dict[Path, int]:
    """Write all `models` or none; returns the bytes of each. The first has `spec` as its metadata, if there is one.

    Raises:
        OutputError: cannot be written. DataError: over protobuf's 2 GiB.
    """
    sizes: dict[Path, int] = {}
    with ExitStack() as stack:
        for path, model in models.items():
            data = _serialised(model, "" if spec is None or sizes else spec.to_json())
            stack.enter_context(atomic_output(path)).write_bytes(data)
            sizes[path] = len(data)
    return sizes


def _serialised(model: onnx.ModelProto, text: str) -> bytes:
    """The same bytes for the same model."""
    model.producer_name, model.producer_version = PRODUCER, __version__
    del model.metadata_props[:]
    if text:
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, text
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError("The model exceeds 2 GiB, which no ONNX file without external data can hold.") from error


def metadata(model: onnx.ModelProto) -> str:
    """Our metadata JSON, "" where there is none."""
    return next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), "")


def _check_ops(model: onnx.ModelProto, path: Path) -> None:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            optimised = node.domain.startswith("com.microsoft")
            raise DataError(
                f"Expected standard ONNX ops in '{path}', but node '{node.name}' is {node.domain}::{node.op_type}. "
                + ("Give the file that ONNX Runtime optimised." if optimised else "Export it without custom ops.")
            )
        if node.op_type in _QUANTISED:
            raise DataError(
                f"Expected a float32 network, but '{path}' is quantised: node '{node.name}' is {node.op_type}. "
                f"{_FLOAT32}"
            )


def _check_numbers(weights: Weights, path: Path) -> None:
    for name, values in weights.arrays.items():
        if values.dtype.kind in "fV" and values.dtype != np.float32:  # bfloat16 is a type apart
            raise DataError(f"Expected float32 weights in '{path}', but '{name}' has {values.dtype}. {_FLOAT32}")
        if values.dtype == np.float32 and np.isnan(values).any():
            raise DataError(f"Expected numbers in '{path}', but '{name}' has NaN. Export another checkpoint.")


def check_fixed_shapes(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what no fixed shapes can hold.

    Raises:
        DataError: there is such a node.
    """
    for node in model.graph.node:
        if node.op_type in _FIXED_SHAPES_BAR:
            raise DataError(
                f"Expected a raw-head ONNX, but node '{node.name}' of '{path}' is {node.op_type}, whose shapes depend "
                f"on the data: the file goes beyond the heads. {_HINT}"
            )


def _check_opset(model: onnx.ModelProto, path: Path) -> None:
    opset, newest = opset_of(model), onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise DataError(
            f"Expected ONNX opset {OLDEST_OPSET} to {newest}, but '{path}' has opset {opset}. "
            "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
        )
    del model.opset_import[:]  # of domains that no node uses, which runtimes may not know
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
