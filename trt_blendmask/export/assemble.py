"""Puts the parts together into the raw-head ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs

from trt_blendmask import __version__
from trt_blendmask.errors import UsageError
from trt_blendmask.export.backbone_config import DLAConfig, ResNetConfig
from trt_blendmask.export.basis import protonet
from trt_blendmask.export.config import BlendMaskConfig
from trt_blendmask.export.dla import dla34
from trt_blendmask.export.fpn import fpn
from trt_blendmask.export.heads import fcos_head
from trt_blendmask.export.layers import GraphBuilder
from trt_blendmask.export.reader import Checkpoint
from trt_blendmask.export.resnet import resnet
from trt_blendmask.export.weights import Weights
from trt_blendmask.structures import METADATA_KEY, ModelSpec

# Opset, and the IR version of the first onnx release that has it: older runtimes refuse a newer one.
VERSIONS, VERSIONS_WITH_DEFORM_CONV = (17, 8), (19, 9)
DEFORMS = ("native", "op")
PRODUCER = "trt-blendmask"
MAX_BATCH = 1024


@dataclass(frozen=True)
class BuiltModel:
    """The raw-head model in memory, its `weights` apart; the numbers are those of `ExportReport`."""

    model: onnx.ModelProto
    weights: dict[str, npt.NDArray[np.generic]]
    parameters: int
    macs: int
    ignored_keys: tuple[str, ...]
    deform_ops: int


def build_model(
    checkpoint: Checkpoint, config: BlendMaskConfig, spec: ModelSpec, batch: int = 1, deform: str = "native"
) -> BuiltModel:
    """Build the raw-head graph of design's contract: `input_image` [N, 3, H, W] normalised BGR, then `bases` and the
    head outputs of each level.

    Raises:
        UsageError: batch or `deform` out of range. DataError: checkpoint and YAML do not belong together.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"The batch must be from 1 to {MAX_BATCH}, got {batch}: pass --batch 1.")
    if deform not in DEFORMS:
        raise UsageError(
            f"Deformable convolution is written as 'native' or 'op', got '{deform}': pass --deform native."
        )
    builder = GraphBuilder(Weights(checkpoint, config.source), deform == "op")
    images = gs.Variable("input_image", np.float32, (batch, 3, *spec.input_hw))
    levels = fpn(builder, config, _stages(builder, config.backbone, images))
    outputs = [protonet(builder, config, levels), *fcos_head(builder, config, levels)]
    ignored = builder.weights.finish()
    builder.check_names()
    weights = builder.detach_constants()
    deform_ops = sum(node.op == "DeformConv" for node in builder.nodes)
    opset, ir_version = VERSIONS_WITH_DEFORM_CONV if deform_ops else VERSIONS
    graph = gs.Graph(builder.nodes, [images], outputs, name="blendmask", opset=opset)
    model = gs.export_onnx(graph.toposort(), do_type_check=False)
    model.ir_version = ir_version
    model.producer_name, model.producer_version = PRODUCER, __version__
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, spec.to_json()
    return BuiltModel(model, weights, builder.parameters, builder.macs, ignored, deform_ops)


def _stages(builder: GraphBuilder, config: ResNetConfig | DLAConfig, images: gs.Variable) -> dict[int, gs.Variable]:
    if isinstance(config, DLAConfig):
        return dla34(builder, config, images)
    return resnet(builder, config, images)
