"""Puts the parts together into the raw-head ONNX and writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from trt_blendmask import __version__
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.export.backbones import resnet
from trt_blendmask.export.basis import protonet
from trt_blendmask.export.config import BlendMaskConfig
from trt_blendmask.export.fpn import fpn
from trt_blendmask.export.heads import fcos_head
from trt_blendmask.export.layers import GraphBuilder
from trt_blendmask.export.reader import Checkpoint
from trt_blendmask.export.weights import Weights
from trt_blendmask.files import atomic_output
from trt_blendmask.structures import METADATA_KEY, ModelSpec

OPSET = 17
IR_VERSION = 8  # of the first onnx release with opset 17: older runtimes refuse a newer one
PRODUCER = "trt-blendmask"
MAX_BATCH = 1024


@dataclass(frozen=True)
class BuiltModel:
    """The raw-head model in memory; the numbers are those of `ExportReport`."""

    model: onnx.ModelProto
    parameters: int
    macs: int
    ignored_keys: tuple[str, ...]


def build_model(checkpoint: Checkpoint, config: BlendMaskConfig, spec: ModelSpec, batch: int = 1) -> BuiltModel:
    """Build the raw-head graph of design's contract: `input_image` [N, 3, H, W] normalised BGR, then `bases` and the
    head outputs of each level.

    Raises:
        UsageError: batch out of range. DataError: checkpoint and YAML do not belong together.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"The batch must be from 1 to {MAX_BATCH}, got {batch}: pass --batch 1.")
    builder = GraphBuilder(Weights(checkpoint, config.path))
    images = gs.Variable("input_image", np.float32, (batch, 3, *spec.input_hw))
    levels = fpn(builder, config, resnet(builder, config.resnet, images))
    outputs = [protonet(builder, config, levels), *fcos_head(builder, config, levels)]
    ignored = builder.weights.finish()
    builder.check_names()
    graph = gs.Graph(builder.nodes, [images], outputs, name="blendmask", opset=OPSET)
    model = gs.export_onnx(graph.toposort(), do_type_check=False)
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = PRODUCER, __version__
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    return BuiltModel(model, builder.parameters, builder.macs, ignored)


def save_model(model: onnx.ModelProto, output: Path) -> int:
    """Write the model, the same bytes for the same model; returns their number.

    Raises:
        OutputError: cannot be written. DataError: larger than 2 GiB.
    """
    try:
        data = model.SerializeToString(deterministic=True)
    except ValueError as error:  # protobuf's limit
        raise DataError("The model has more than 2 GiB of weights, which one ONNX file cannot hold.") from error
    with atomic_output(output) as temporary:
        temporary.write_bytes(data)
    return len(data)
