"""MODEL.BACKBONE with MODEL.RESNETS or MODEL.DLA of AdelaiDet's configuration, and what of it cannot be exported."""

from __future__ import annotations

from dataclasses import dataclass

from trt_blendmask.export.norms import NORMS
from trt_blendmask.export.yaml_tree import YamlTree

RESNET = "build_fcos_resnet_fpn_backbone"
DLA = "build_fcos_dla_fpn_backbone"
DEPTHS = (18, 34, 50, 101)
BASIC_DEPTHS = (18, 34)  # of two 3x3 convolutions a block; deeper ones have bottlenecks


@dataclass(frozen=True)
class ResNetConfig:
    """MODEL.RESNETS.

    Attributes:
        deformable: whether res2, res3, res4, res5 hold deformable 3x3 convolutions; if so the blocks 0,
            `deform_interval`, 2 * `deform_interval`, ... of the stage do. modulated: with a mask (DCNv2).
    """

    depth: int
    norm: str
    stem_channels: int
    res2_channels: int
    groups: int
    width_per_group: int
    stride_in_1x1: bool
    deformable: tuple[bool, ...]
    deform_interval: int
    deform_groups: int
    modulated: bool


@dataclass(frozen=True)
class DLAConfig:
    """MODEL.DLA: DLA-34; its channels are read from the checkpoint."""

    norm: str


def read_backbone(tree: YamlTree) -> ResNetConfig | DLAConfig:
    """The backbone of the YAML; of one that is `unsupported`, the values that a ResNet would have.

    Raises:
        DataError: a value that is out of range.
    """
    if tree.get("MODEL.BACKBONE.NAME", None) == DLA:
        return DLAConfig(tree.choice("MODEL.DLA.NORM", "FrozenBN", NORMS))
    return ResNetConfig(
        depth=tree.integer("MODEL.RESNETS.DEPTH", 50, 1, 1000),
        norm=tree.choice("MODEL.RESNETS.NORM", "FrozenBN", NORMS),
        stem_channels=tree.integer("MODEL.RESNETS.STEM_OUT_CHANNELS", 64, 1, 8192),
        res2_channels=tree.integer("MODEL.RESNETS.RES2_OUT_CHANNELS", 256, 1, 8192),
        groups=tree.integer("MODEL.RESNETS.NUM_GROUPS", 1, 1, 1024),
        width_per_group=tree.integer("MODEL.RESNETS.WIDTH_PER_GROUP", 64, 1, 8192),
        stride_in_1x1=tree.flag("MODEL.RESNETS.STRIDE_IN_1X1", True),
        deformable=_deformable(tree),
        deform_interval=tree.integer("MODEL.RESNETS.DEFORM_INTERVAL", 1, 1, 1000),
        deform_groups=tree.integer("MODEL.RESNETS.DEFORM_NUM_GROUPS", 1, 1, 1024),
        modulated=tree.flag("MODEL.RESNETS.DEFORM_MODULATED", False),
    )


def unsupported(tree: YamlTree) -> str:
    """The sentence for the first value that asks for a network that export has no layers for, else ""."""
    dla = tree.get("MODEL.BACKBONE.NAME", None) == DLA
    levels = tuple(f"{'level' if dla else 'res'}{level}" for level in (3, 4, 5))
    names = f"{RESNET} or {DLA}"
    rules: list[tuple[str, object, tuple[object, ...], str]] = [
        ("MODEL.BACKBONE.NAME", None, (RESNET, DLA), names),
        ("MODEL.MOBILENET", False, (False,), "False: only ResNet and DLA-34 can be exported"),
        ("MODEL.BACKBONE.ANTI_ALIAS", False, (False,), "False: anti-aliased ResNet cannot be exported"),
        ("MODEL.FPN.IN_FEATURES", levels, (levels, ("res2", *levels)), ", ".join(levels)),
        ("MODEL.FPN.FUSE_TYPE", "sum", ("sum",), "sum"),
    ]
    if dla:
        rules += [("MODEL.DLA.CONV_BODY", "DLA34", ("DLA34",), "DLA34")]
    else:
        rules += [
            ("MODEL.RESNETS.DEPTH", 50, DEPTHS, f"one of {', '.join(map(str, DEPTHS))}"),
            ("MODEL.RESNETS.RES5_DILATION", 1, (1,), "1: P5 must be at stride 32"),
            ("MODEL.RESNETS.OUT_FEATURES", levels, (levels, ("res2", *levels)), ", ".join(levels)),
        ]
        if tree.get("MODEL.RESNETS.DEPTH", 50) in BASIC_DEPTHS:
            never = (False,) * 4
            rules += [("MODEL.RESNETS.DEFORM_ON_PER_STAGE", never, (never,), "four times False at this DEPTH")]
    for key, default, accepted, expected in rules:
        value = tree.get(key, default)
        if (tuple(value) if isinstance(value, list) else value) not in accepted:
            return str(tree.refuse(key, value, expected))
    return ""


def _deformable(tree: YamlTree) -> tuple[bool, ...]:
    key = "MODEL.RESNETS.DEFORM_ON_PER_STAGE"
    found = tree.get(key, [False] * 4)
    if not isinstance(found, (list, tuple)) or len(found) != 4 or any(type(flag) is not bool for flag in found):
        raise tree.refuse(key, found, "True or False for each of res2, res3, res4, res5")
    return tuple(found)
