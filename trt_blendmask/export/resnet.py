"""ResNet with basic or bottleneck blocks, as detectron2 names and shapes it (modeling/backbone/resnet.py)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_blendmask.export.backbone_config import BASIC_DEPTHS, ResNetConfig
from trt_blendmask.export.deform import Deform, deform_conv_norm
from trt_blendmask.export.layers import Conv, GraphBuilder

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
PREFIX = "backbone.bottom_up"


def resnet(builder: GraphBuilder, config: ResNetConfig, images: gs.Variable) -> dict[int, gs.Variable]:
    """Add the backbone.

    Returns:
        res3, res4, res5 under the keys 3, 4, 5: strides 8, 16, 32.
    """
    why = (
        f"MODEL.RESNETS DEPTH {config.depth}, NORM {config.norm or 'none'}, STEM_OUT_CHANNELS {config.stem_channels}, "
        f"RES2_OUT_CHANNELS {config.res2_channels}"
    )
    if config.depth not in BASIC_DEPTHS:
        why += f", NUM_GROUPS {config.groups}, WIDTH_PER_GROUP {config.width_per_group}"
    if any(config.deformable):
        why += f", DEFORM_INTERVAL {config.deform_interval}, DEFORM_MODULATED {config.modulated}"
    x = _conv(builder, config, "stem.conv1", images, (config.stem_channels, 7, 2, 1), why)
    x = builder.relu("backbone.stem.relu", x)
    x = builder.max_pool("backbone.stem.max_pool", x, 3, 1)
    stages: dict[int, gs.Variable] = {}
    channels, middle = config.res2_channels, config.groups * config.width_per_group
    for stage, count in enumerate(BLOCKS[config.depth], start=2):
        for index in range(count):
            stride = 2 if stage > 2 and index == 0 else 1
            name = f"res{stage}.{index}"
            if config.depth in BASIC_DEPTHS:
                x = _basic(builder, config, name, x, channels, stride, why)
            else:
                deformable = config.deformable[stage - 2] and index % config.deform_interval == 0
                x = _bottleneck(builder, config, name, x, (middle, channels), stride, why, deformable)
        stages[stage] = x
        channels, middle = channels * 2, middle * 2
    return {stage: stages[stage] for stage in (3, 4, 5)}


def _basic(
    builder: GraphBuilder,
    config: ResNetConfig,
    name: str,
    x: gs.Variable,
    channels: int,
    stride: int,
    why: str,
) -> gs.Variable:
    y = _conv(builder, config, f"{name}.conv1", x, (channels, 3, stride, 1), why)
    y = builder.relu(f"backbone.{name}.conv1.relu", y)
    y = _conv(builder, config, f"{name}.conv2", y, (channels, 3, 1, 1), why)
    return _join(builder, config, name, x, y, stride, why)


def _bottleneck(
    builder: GraphBuilder,
    config: ResNetConfig,
    name: str,
    x: gs.Variable,
    channels: tuple[int, int],
    stride: int,
    why: str,
    deformable: bool,
) -> gs.Variable:
    middle, out = channels
    first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
    y = _conv(builder, config, f"{name}.conv1", x, (middle, 1, first, 1), why)
    y = builder.relu(f"backbone.{name}.conv1.relu", y)
    y = _conv(builder, config, f"{name}.conv2", y, (middle, 3, second, config.groups), why, deformable)
    y = builder.relu(f"backbone.{name}.conv2.relu", y)
    y = _conv(builder, config, f"{name}.conv3", y, (out, 1, 1, 1), why)
    return _join(builder, config, name, x, y, stride, why)


def _join(
    builder: GraphBuilder,
    config: ResNetConfig,
    name: str,
    x: gs.Variable,
    y: gs.Variable,
    stride: int,
    why: str,
) -> gs.Variable:
    """Add the input, through a 1x1 convolution where its channels differ, and rectify."""
    if x.shape[1] != y.shape[1]:
        x = _conv(builder, config, f"{name}.shortcut", x, (y.shape[1], 1, stride, 1), why)
    return builder.relu(f"backbone.{name}.relu", builder.add(f"backbone.{name}.add", y, x))


def _conv(
    builder: GraphBuilder,
    config: ResNetConfig,
    name: str,
    x: gs.Variable,
    form: tuple[int, int, int, int],
    why: str,
    deformable: bool = False,
) -> gs.Variable:
    channels, kernel, stride, groups = form
    key = f"{PREFIX}.{name}"
    conv = Conv(key, channels, kernel, why, stride, groups, False, config.norm, f"{key}.norm")
    if deformable:
        deform = Deform(f"{key}_offset", config.deform_groups, config.modulated)
        return deform_conv_norm(builder, f"backbone.{name}", x, conv, deform)
    return builder.conv_norm(f"backbone.{name}", x, conv)
