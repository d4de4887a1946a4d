"""The deployable ONNX that an engine is built from, read once, and what is wrong with one that is none."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import onnx

from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.files import existing_file
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN, check_parts, nodes_of
from trt_blendmask.structures import METADATA_KEY, TABLE_MARK, ModelSpec
from trt_blendmask.surgery.reading.merge_weights import without_weights

_HINT = "Give the model.onnx that 'trt-blendmask surgery raw.onnx -o model.onnx' writes."
_ENDS = {"count", "boxes", "scores", "classes", "masks"}
_TAILS = {"RoiAlignBlend": "plugin", "RoiAlignBlendAot": "aot"}


@dataclass(frozen=True)
class Source:
    """A deployable ONNX, read once.

    Attributes:
        model: without its large weights, which a build need not hold twice.
        tail: "native", "plugin" or "aot", by its nodes. table_sha256: of the table it was quantised with, or "".
    """

    path: Path
    sha256: str
    model: onnx.ModelProto
    spec: ModelSpec
    tail: str
    table_sha256: str


def read_source(path: Path) -> Source:
    """Read a deployable ONNX.

    Raises:
        InputMissingError: no such file, or it cannot be read.
        DataError: no ONNX, or not deployable.
    """
    file = existing_file(path, "a deployable ONNX model", _HINT)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputMissingError(f"Cannot read '{path}': {error.strerror or error}. Check the disk.") from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError(f"Expected a deployable ONNX, but '{path}' is no ONNX file, or cut short. {_HINT}") from error
    check_parts(model, path)
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), "")
    spec = ModelSpec.from_json(text, path) if text else None
    names = {output.name for output in model.graph.output}
    if (spec and spec.kind == "raw-head") or (spec is None and "bases" in names):
        raise DataError(
            f"Expected a deployable ONNX, but '{path}' is a raw-head ONNX (before surgery). Type: trt-blendmask "
            f"surgery {shlex.quote(str(path))} -o model.onnx"
        )
    if spec is None or not names >= _ENDS:
        listed = ", ".join(sorted(names)[:6]) or "none"
        raise DataError(f"Expected a deployable ONNX, but '{path}' is none of ours (outputs: {listed}). {_HINT}")
    graphs = [model.graph, *(onnx.GraphProto(node=function.node) for function in model.functions)]
    nodes = (node for graph in graphs for node in nodes_of(graph))
    ours = [_TAILS.get(node.op_type, "plugin") for node in nodes if node.domain == PLUGIN_DOMAIN]
    table = re.search(rf"{TABLE_MARK}([0-9a-f]{{64}})", model.doc_string)
    sha256 = hashlib.sha256(content).hexdigest()
    return Source(file, sha256, without_weights(model), spec, ours[0] if ours else "native", table[1] if table else "")
