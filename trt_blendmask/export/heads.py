"""FCOS head and BlendMask's top layer (adet/modeling/fcos/fcos.py, adet/modeling/blendmask/blendmask.py)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_blendmask.export.config import BlendMaskConfig
from trt_blendmask.export.deform import Deform, deform_conv_norm
from trt_blendmask.export.layers import Conv, GraphBuilder
from trt_blendmask.export.norms import BATCH_NORMS
from trt_blendmask.export.weights import Affine

PREFIX = "proposal_generator.fcos_head"
ITEMS = ("logits", "bbox_reg", "centerness", "top_feats")


def fcos_head(builder: GraphBuilder, config: BlendMaskConfig, levels: list[gs.Variable]) -> list[gs.Variable]:
    """Add the head on every level; its weights are shared over the levels.

    Returns:
        `P3logits`, `P4logits`, ..., `P3bbox_reg`, ..., `P3centerness`, ..., `P3top_feats`, ...: all levels of one item
        before the next item, as in AdelaiDet's exporter. `bbox_reg` is rectified and in strides; the rest is linear.
    """
    outputs: dict[str, list[gs.Variable]] = {item: [] for item in ITEMS}
    for index, feature in enumerate(levels):
        for item, tensor in zip(ITEMS, _level(builder, config, index, feature), strict=True):
            outputs[item].append(tensor)
    return [tensor for item in ITEMS for tensor in outputs[item]]


def _level(builder: GraphBuilder, config: BlendMaskConfig, index: int, x: gs.Variable) -> list[gs.Variable]:
    level, head = f"P{3 + index}", config.head
    shared = _tower(builder, config, "share_tower", head.share_convs, index, x)
    cls_tower = _tower(builder, config, "cls_tower", head.cls_convs, index, shared)
    box_tower = _tower(builder, config, "bbox_tower", head.box_convs, index, shared)

    def predict(name: str, tower: gs.Variable, key: str, channels: int, why: str, output: str) -> gs.Variable:
        return builder.conv_norm(f"head.{level}.{name}", tower, Conv(key, channels, 3, why), f"head.{name}", output)

    attention = config.num_bases * config.attention_size**2
    why = f"MODEL.BASIS_MODULE.NUM_BASES {config.num_bases}, BLENDMASK.ATTN_SIZE {config.attention_size}"
    classes = f"MODEL.FCOS.NUM_CLASSES {config.num_classes}"
    return [
        predict(
            "cls_logits",
            cls_tower,
            f"{PREFIX}.cls_logits",
            config.num_classes,
            classes,
            f"{level}logits",
        ),
        _boxes(builder, config, index, box_tower),
        predict("ctrness", box_tower, f"{PREFIX}.ctrness", 1, "every BlendMask", f"{level}centerness"),
        predict("top_layer", box_tower, "top_layer", attention, why, f"{level}top_feats"),
    ]


def _boxes(builder: GraphBuilder, config: BlendMaskConfig, index: int, tower: gs.Variable) -> gs.Variable:
    """relu(scale * conv): the learned scale of the level is folded into a copy of the (small) weights."""
    level, key = f"P{3 + index}", f"{PREFIX}.bbox_pred"
    name, conv = f"head.{level}.bbox_pred", Conv(f"{PREFIX}.bbox_pred", 4, 3, "every BlendMask")
    if not config.head.use_scale:
        y = builder.conv_norm(name, tower, conv, "head.bbox_pred")
    else:
        weight = builder.weights.take(f"{key}.weight", (4, tower.shape[1], 3, 3), conv.why)
        bias = builder.weights.take(f"{key}.bias", (4,), conv.why)
        (scale,) = builder.weights.take(f"{PREFIX}.scales.{index}.scale", (1,), "MODEL.FCOS.USE_SCALE True")
        y = builder.conv(name, tower, conv, weight * scale, bias * scale, name)
    return builder.relu(f"{name}.relu", y, output=f"{level}bbox_reg")


def _tower(
    builder: GraphBuilder,
    config: BlendMaskConfig,
    tower: str,
    count: int,
    index: int,
    x: gs.Variable,
) -> gs.Variable:
    """`count` times 3x3 convolution, norm, ReLU. Batch norm has vectors per level, so it stays behind the shared
    convolution as one scale and shift; the convolution's bias is part of the shift. Where MODEL.FCOS.USE_DEFORMABLE is
    True, the last convolution of the two towers that are not shared is a DCNv2."""
    norm, level = config.head.norm, f"P{3 + index}"
    setting = {"share_tower": "SHARE", "cls_tower": "CLS", "bbox_tower": "BOX"}[tower]
    why = f"MODEL.FPN.OUT_CHANNELS {config.fpn_channels}, FCOS.NUM_{setting}_CONVS {count}, FCOS.NORM {norm or 'none'}"
    modules = 3 if norm else 2
    for layer in range(count):
        name, shared = f"head.{level}.{tower}.{layer}", f"head.{tower}.{layer}"
        key = f"{PREFIX}.{tower}.{modules * layer}"
        norm_key = f"{PREFIX}.{tower}.{modules * layer + 1}"
        deform = None
        if config.head.deformable and tower != "share_tower" and layer == count - 1:
            key, deform = f"{key}.conv", Deform(f"{key}.offset", 1, True)
        if norm in BATCH_NORMS:
            conv = Conv(key, config.fpn_channels, 3, why, bias=False)
            bias = builder.weights.take(f"{key}.bias", (config.fpn_channels,), why)
            affine = builder.weights.batch_norm(f"{norm_key}.{index}", config.fpn_channels, why)
            x = _convolve(builder, name, x, conv, deform, shared)
            affine = Affine(affine.scale, affine.scale * bias + affine.shift)
            x = builder.affine(f"{name}.norm", x, affine, f"{name}.norm")
        else:
            conv = Conv(key, config.fpn_channels, 3, why, norm=norm, norm_key=norm_key)
            x = _convolve(builder, name, x, conv, deform, shared)
        x = builder.relu(f"{name}.relu", x)
    return x


def _convolve(
    builder: GraphBuilder, name: str, x: gs.Variable, conv: Conv, deform: Deform | None, shared: str
) -> gs.Variable:
    if deform is None:
        return builder.conv_norm(name, x, conv, shared)
    return deform_conv_norm(builder, name, x, conv, deform, shared)
