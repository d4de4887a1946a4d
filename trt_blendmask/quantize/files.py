"""Deployable ONNX files, read for calibration and quantisation, and written back."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from trt_blendmask.errors import DataError
from trt_blendmask.files import existing_file
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN, check_parts
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.reading.load import metadata, save
from trt_blendmask.surgery.reading.merge_weights import constant_of, without_weights

OUTPUTS = ("count", "boxes", "scores", "classes", "masks")
_HINT = "Give the model.onnx that 'trt-blendmask surgery raw.onnx -o model.onnx' writes."
_QUANTISES = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")
_TYPED = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)


@dataclass(frozen=True)
class Deployable:
    """A deployable ONNX in float32: its constants are initializers, none of them NaN, and no node has a subgraph."""

    path: Path
    model: onnx.ModelProto
    spec: ModelSpec


def read_deployable(path: Path) -> Deployable:
    """Read what surgery wrote.

    Raises:
        InputMissingError: no such file.
        DataError: no ONNX, not deployable, already quantised or typed, or a constant that is NaN.
    """
    file = existing_file(path, "a deployable ONNX", _HINT)
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError(f"Expected a deployable ONNX, but '{path}' is no ONNX file, or cut short. {_HINT}") from error
    check_parts(model, path)
    text = metadata(model)
    spec = ModelSpec.from_json(text, path) if text else None
    _check_kind(model, spec, path)
    assert spec is not None
    _check_float32(model, spec, path)
    _constants_to_initializers(model)
    _check_constants(model, path)
    _check_whole(model, path)
    return Deployable(path, model, spec)


def write_quantized(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> int:
    """Write `model` with `spec` as its metadata, whole or not at all; returns its bytes.

    Raises:
        OutputError: cannot be written. DataError: over protobuf's 2 GiB.
    """
    return save({path: model}, spec)[path]


def _check_kind(model: onnx.ModelProto, spec: ModelSpec | None, path: Path) -> None:
    names = {output.name for output in model.graph.output}
    operate = f"Type: trt-blendmask surgery {shlex.quote(str(path))} -o model.onnx"
    if spec is None and "attention" in {value.name for value in (*model.graph.input, *model.graph.output)}:
        raise DataError(
            f"Expected a whole deployable ONNX, but '{path}' is a half of one (--split). Give the file that it was cut "
            "from."
        )
    if (spec is not None and spec.kind == "raw-head") or (spec is None and "bases" in names):
        raise DataError(f"Expected a deployable ONNX, but '{path}' is a raw-head ONNX (before surgery). {operate}")
    if spec is None or not names.issuperset(OUTPUTS):
        raise DataError(
            f"Expected a deployable ONNX, but '{path}' is none of ours (outputs: "
            f"{', '.join(sorted(names)[:6]) or 'none'}). {_HINT}"
        )
    sides = [dim.dim_value for value in model.graph.input for dim in value.type.tensor_type.shape.dim]
    if len(sides) != 4 or min(sides) < 1:
        raise DataError(f"Expected one input of four fixed sizes in '{path}', which surgery writes. {_HINT}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx", PLUGIN_DOMAIN):
            raise DataError(f"Expected standard ONNX ops in '{path}', but node '{node.name}' is of '{node.domain}'.")
        if model.functions or any(a.HasField("g") or a.graphs for a in node.attribute):
            raise DataError(f"Expected a plain graph, but '{path}' has functions or graphs inside its nodes. {_HINT}")


def _check_float32(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> None:
    marks = [f"its metadata says {spec.precision}"] if spec.precision else []
    marks += [f"'{n.name}' is {n.op_type}" for n in model.graph.node if n.op_type in _QUANTISES]
    marks += [f"'{t.name}' is not float32" for t in model.graph.initializer if t.data_type in _TYPED]
    if marks:
        raise DataError(
            f"Expected a deployable ONNX in float32, but '{path}' is quantised or typed already: {marks[0]}. {_HINT}"
        )


def _check_whole(model: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except Exception as error:  # onnx raises several kinds, some from C++
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DataError(f"'{path}' is an ONNX file that does not hold together: {reason}. {_HINT}") from error


def _constants_to_initializers(model: onnx.ModelProto) -> None:
    nodes = []
    for node in model.graph.node:
        tensor = constant_of(node)
        if tensor is None:
            nodes.append(node)
        else:
            model.graph.initializer.append(tensor)
            model.graph.initializer[-1].name = node.output[0]
    if len(nodes) < len(model.graph.node):
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _check_constants(model: onnx.ModelProto, path: Path) -> None:
    for tensor in model.graph.initializer:
        try:
            values = numpy_helper.to_array(tensor)
            broken = values.dtype.kind == "f" and bool(np.isnan(values).any())
        except Exception as error:  # numpy and onnx raise several kinds
            raise DataError(f"'{path}' does not hold together: '{tensor.name}' cannot be read. {_HINT}") from error
        if broken:
            raise DataError(
                f"Expected numbers, but the constant '{tensor.name}' of '{path}' holds NaN: the checkpoint is broken. "
                "Take another one: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
            )
