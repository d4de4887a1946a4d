"""The part of AdelaiDet's YAML that this sample reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True)
class Config:
    """The part of AdelaiDet's configuration that shapes the network, its selection and its training targets."""

    depth: int
    backbone_norm: str
    stem_channels: int
    res2_channels: int
    width_per_group: int
    stride_in_1x1: bool
    fpn_channels: int
    top_levels: int
    strides: tuple[int, ...]
    num_classes: int
    share_convs: int
    cls_convs: int
    box_convs: int
    head_norm: str
    use_scale: bool
    sizes_of_interest: tuple[int, ...]
    radius: float
    score_threshold: float
    nms_threshold: float
    pre_nms_topk: int
    max_detections: int
    num_bases: int
    proto_channels: int
    proto_convs: int
    proto_norm: str
    seg_head: bool
    seg_classes: int
    seg_weight: float
    mask_size: int
    attention_size: int
    input_hw: tuple[int, int]
    pixel_mean: tuple[float, ...] = field(default=(103.53, 116.28, 123.675))

    @staticmethod
    def read(path: Path) -> Config:
        """Reads an AdelaiDet YAML (complete or with framework defaults left out); ValueError for another network."""
        tree: dict[str, Any] = yaml.safe_load(Path(path).read_text())
        model, sizes = tree["MODEL"], tree.get("INPUT", {})
        res, fcos = model["RESNETS"], model["FCOS"]
        blend, proto = model["BLENDMASK"], model["BASIS_MODULE"]
        if model.get("META_ARCHITECTURE") != "BlendMask" or res["DEPTH"] not in BLOCKS:
            raise ValueError(f"{path}: expected a BlendMask on a ResNet of depth {sorted(BLOCKS)}")
        if not fcos.get("THRESH_WITH_CTR", False):
            raise ValueError(f"{path}: expected FCOS.THRESH_WITH_CTR True")
        top_levels = fcos.get("TOP_LEVELS", 2)
        return Config(
            depth=res["DEPTH"],
            backbone_norm=res.get("NORM", "FrozenBN"),
            stem_channels=res.get("STEM_OUT_CHANNELS", 64),
            res2_channels=res.get("RES2_OUT_CHANNELS", 256),
            width_per_group=res.get("WIDTH_PER_GROUP", 64),
            stride_in_1x1=res.get("STRIDE_IN_1X1", True),
            fpn_channels=model["FPN"].get("OUT_CHANNELS", 256),
            top_levels=top_levels,
            strides=tuple(fcos.get("FPN_STRIDES", (8, 16, 32, 64, 128)))[: 3 + top_levels],
            num_classes=fcos.get("NUM_CLASSES", 80),
            share_convs=fcos.get("NUM_SHARE_CONVS", 0),
            cls_convs=fcos.get("NUM_CLS_CONVS", 4),
            box_convs=fcos.get("NUM_BOX_CONVS", 4),
            head_norm=fcos.get("NORM", "GN").replace("none", ""),
            use_scale=fcos.get("USE_SCALE", True),
            sizes_of_interest=tuple(fcos.get("SIZES_OF_INTEREST", (64, 128, 256, 512))),
            radius=fcos.get("POS_RADIUS", 1.5),
            score_threshold=fcos.get("INFERENCE_TH_TEST", 0.05),
            nms_threshold=fcos.get("NMS_TH", 0.6),
            pre_nms_topk=fcos.get("PRE_NMS_TOPK_TEST", 1000),
            max_detections=fcos.get("POST_NMS_TOPK_TEST", 100),
            num_bases=proto.get("NUM_BASES", 4),
            proto_channels=proto.get("CONVS_DIM", 128),
            proto_convs=proto.get("NUM_CONVS", 3),
            proto_norm=proto.get("NORM", "SyncBN"),
            seg_head=proto.get("LOSS_ON", False),
            seg_classes=proto.get("NUM_CLASSES", 80),
            seg_weight=proto.get("LOSS_WEIGHT", 0.3),
            mask_size=blend.get("BOTTOM_RESOLUTION", 56),
            attention_size=blend.get("ATTN_SIZE", 14),
            input_hw=(
                -(-sizes.get("MIN_SIZE_TEST", 800) // 32) * 32,  # the network's stride
                -(-sizes.get("MAX_SIZE_TEST", 1333) // 32) * 32,
            ),
            pixel_mean=tuple(model.get("PIXEL_MEAN", (103.53, 116.28, 123.675))),
        )
