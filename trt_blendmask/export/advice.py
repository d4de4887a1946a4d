"""Which published model a checkpoint resembles: settings counted from its keys and shapes, nothing read."""

from __future__ import annotations

import math
import re
from functools import cache

from trt_blendmask.export.backbone_config import DLA, RESNET, ResNetConfig
from trt_blendmask.export.config import BlendMaskConfig, read_config
from trt_blendmask.export.norms import BATCH_NORMS
from trt_blendmask.export.presets import PRESETS
from trt_blendmask.export.reader import Checkpoint

Settings = dict[str, object]

HEAD = "proposal_generator.fcos_head"
TOWER = "MODEL.FCOS.NUM_{}_CONVS"
BACKBONE_KEYS = ("MODEL.BACKBONE.NAME", "MODEL.RESNETS.DEPTH", "MODEL.RESNETS.DEFORM_INTERVAL")
DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101}  # of the published ones
MAX_OPTIONS = 8


def advise(checkpoint: Checkpoint) -> str:
    """The sentence that says what to pass for this checkpoint."""
    counted = _count(checkpoint)
    differing = {
        name: {key: value for key, value in counted.items() if settings.get(key) != value}
        for name, settings in _of_presets().items()
        if all(counted.get(key) == settings.get(key) for key in BACKBONE_KEYS)
    }
    usual = "Pass the YAML that this checkpoint was trained with (--config)"
    fewest = min(map(len, differing.values()), default=MAX_OPTIONS + 1)
    if fewest > MAX_OPTIONS:
        return f"{usual}."
    names = [name for name, options in differing.items() if len(options) == fewest]
    words = [str(word) for setting in differing[names[0]].items() for word in setting]
    options = " ".join(["", "--opts", *words]) if words else ""
    return f"{usual}, or --preset {names[0]}{options}, which fits the shapes of its weights."


@cache
def _of_presets() -> dict[str, Settings]:
    return {name: _of_config(read_config(preset=name)) for name in PRESETS}


def _of_config(config: BlendMaskConfig) -> Settings:
    settings: Settings = {
        "MODEL.FCOS.NUM_CLASSES": config.num_classes,
        "MODEL.FCOS.TOP_LEVELS": config.top_levels,
        TOWER.format("SHARE"): config.head.share_convs,
        TOWER.format("CLS"): config.head.cls_convs,
        TOWER.format("BOX"): config.head.box_convs,
        "MODEL.FCOS.NORM": "SyncBN" if config.head.norm in BATCH_NORMS else config.head.norm or "none",
        "MODEL.FCOS.USE_SCALE": config.head.use_scale,
        "MODEL.FPN.OUT_CHANNELS": config.fpn_channels,
        "MODEL.BASIS_MODULE.NUM_CONVS": config.basis.convs,
        "MODEL.BASIS_MODULE.CONVS_DIM": config.basis.channels,
        "MODEL.BASIS_MODULE.NUM_BASES": config.num_bases,
        "MODEL.BLENDMASK.ATTN_SIZE": config.attention_size,
    }
    if not isinstance(config.backbone, ResNetConfig):
        return {"MODEL.BACKBONE.NAME": DLA, **settings}
    resnet = config.backbone
    return {
        "MODEL.BACKBONE.NAME": RESNET,
        "MODEL.RESNETS.DEPTH": resnet.depth,
        "MODEL.RESNETS.DEFORM_INTERVAL": resnet.deform_interval if any(resnet.deformable) else None,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": resnet.stem_channels,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": resnet.res2_channels,
        "MODEL.RESNETS.WIDTH_PER_GROUP": resnet.width_per_group,
        **settings,
    }


def _count(checkpoint: Checkpoint) -> Settings:
    """The same settings as far as the checkpoint tells; what it does not tell is left out."""
    shapes = {key: weight.shape for key, weight in checkpoint.weights.items()}
    settings: Settings = {}

    def note(setting: str, key: str, axis: int = 0) -> int:
        size = shapes[key][axis] if len(shapes.get(key, ())) == 4 else 0
        if size:
            settings[setting] = size
        return size

    note("MODEL.FCOS.NUM_CLASSES", f"{HEAD}.cls_logits.weight")
    note("MODEL.FPN.OUT_CHANNELS", "backbone.fpn_output3.weight")
    note("MODEL.BASIS_MODULE.CONVS_DIM", "basis_module.refine.0.0.weight")
    settings["MODEL.FCOS.TOP_LEVELS"] = sum(f"backbone.top_block.p{level}.weight" in shapes for level in (6, 7))
    settings["MODEL.FCOS.USE_SCALE"] = f"{HEAD}.scales.0.scale" in shapes
    tower = [key for key in shapes if re.match(rf"{HEAD}\.(share|cls|bbox)_tower\.", key)]
    for name, part in (("SHARE", "share"), ("CLS", "cls"), ("BOX", "bbox")):
        settings[TOWER.format(name)] = sum(f"{part}_tower." in key and len(shapes[key]) == 4 for key in tower)
    if tower:
        per_level = any(key.endswith(".running_mean") for key in tower)
        vectors = any(key.endswith(".weight") and len(shapes[key]) == 1 for key in tower)
        settings["MODEL.FCOS.NORM"] = "SyncBN" if per_level else "GN" if vectors else "none"
    last = max((int(m[1]) for m in map(re.compile(r"basis_module\.tower\.(\d{1,3})\.").match, shapes) if m), default=0)
    if last >= 2:  # n convolutions, the upsampling, one more, the last one
        settings["MODEL.BASIS_MODULE.NUM_CONVS"] = last - 2
        bases = note("MODEL.BASIS_MODULE.NUM_BASES", f"basis_module.tower.{last}.weight")
        attention = shapes.get("top_layer.weight", (0,))[0]
        if bases and math.isqrt(attention // bases) ** 2 * bases == attention > 0:
            settings["MODEL.BLENDMASK.ATTN_SIZE"] = math.isqrt(attention // bases)
    return {**_count_backbone(shapes), **settings}


def _count_backbone(shapes: dict[str, tuple[int, ...]]) -> Settings:
    if any(key.startswith("backbone.bottom_up.level2.") for key in shapes):
        return {"MODEL.BACKBONE.NAME": DLA}
    blocks = {
        m.groups() for m in map(re.compile(r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv3\.weight").match, shapes) if m
    }
    counts = tuple(sum(stage == str(number) for stage, _ in blocks) for number in (2, 3, 4, 5))
    found: Settings = {"MODEL.BACKBONE.NAME": RESNET, "MODEL.RESNETS.DEPTH": DEPTHS.get(counts)}
    deformed = [f"backbone.bottom_up.res4.{index}.conv2_offset.weight" in shapes for index in range(6)]
    steps: dict[tuple[bool, ...], int] = {(True, False, False, True, False, False): 3, (True,) * 6: 1}
    found["MODEL.RESNETS.DEFORM_INTERVAL"] = steps.get(tuple(deformed), 0) if any(deformed) else None
    places = {"STEM_OUT_CHANNELS": "stem.conv1", "RES2_OUT_CHANNELS": "res2.0.conv3", "WIDTH_PER_GROUP": "res2.0.conv1"}
    for setting, key in places.items():
        channels = shapes.get(f"backbone.bottom_up.{key}.weight", ())
        if channels:
            found[f"MODEL.RESNETS.{setting}"] = channels[0]
    return found
