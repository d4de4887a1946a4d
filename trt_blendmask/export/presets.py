"""The published BlendMask configurations of AdelaiDet as the values that differ from the framework's defaults.

Names are those of AdelaiDet's configs/BlendMask; a folder in front becomes part of the name: "Person_R_50_1x". Only
what shapes inference is here. Of the panoptic networks the instance part is read: its FPN also takes res2, which
changes nothing at P3 and above.
"""

from __future__ import annotations

import difflib
from typing import Any

from trt_blendmask.errors import UsageError

_BASE = {
    "MODEL.META_ARCHITECTURE": "BlendMask",
    "MODEL.BACKBONE.NAME": "build_fcos_resnet_fpn_backbone",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.FCOS.THRESH_WITH_CTR": True,
    "MODEL.FCOS.USE_SCALE": False,
    "DATASETS.TRAIN": ["coco_2017_train"],
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
}
_R_101 = {"MODEL.RESNETS.DEPTH": 101}
_DCN_INTERVAL_3 = {
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True],
    "MODEL.RESNETS.DEFORM_MODULATED": True,
    "MODEL.RESNETS.DEFORM_INTERVAL": 3,
}
_SHARED_TOWER = {
    "MODEL.FCOS.NUM_SHARE_CONVS": 3,
    "MODEL.FCOS.NUM_CLS_CONVS": 0,
    "MODEL.FCOS.NUM_BOX_CONVS": 0,
    "MODEL.BASIS_MODULE.NUM_CONVS": 2,
}
_550 = {
    **_SHARED_TOWER,
    "MODEL.FCOS.TOP_LEVELS": 1,
    "MODEL.FCOS.IN_FEATURES": ["p3", "p4", "p5", "p6"],
    "MODEL.FCOS.FPN_STRIDES": [8, 16, 32, 64],
    "INPUT.MIN_SIZE_TEST": 550,
    "INPUT.MAX_SIZE_TEST": 916,
}
_REAL_TIME = {
    "MODEL.FCOS.TOP_LEVELS": 0,
    "MODEL.FCOS.IN_FEATURES": ["p3", "p4", "p5"],
    "MODEL.FCOS.FPN_STRIDES": [8, 16, 32],
    "INPUT.MIN_SIZE_TEST": 512,
    "INPUT.MAX_SIZE_TEST": 736,
}
_RT_R_50 = {**_REAL_TIME, **_SHARED_TOWER, "MODEL.RESNETS.NORM": "SyncBN"}
_DLA_34 = {
    "MODEL.BACKBONE.NAME": "build_fcos_dla_fpn_backbone",
    "MODEL.DLA.CONV_BODY": "DLA34",
    "MODEL.DLA.NORM": "SyncBN",
    "MODEL.FPN.IN_FEATURES": ["level3", "level4", "level5"],
}
_PERSON = {"MODEL.FCOS.NUM_CLASSES": 1, "DATASETS.TRAIN": ["pic_person_train"]}
_PANOPTIC = {
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "DATASETS.TRAIN": ["coco_2017_train_panoptic_separated"],
}

PRESETS: dict[str, dict[str, Any]] = {
    "R_50_1x": _BASE,
    "R_50_3x": _BASE,
    "R_101_3x": {**_BASE, **_R_101},
    "R_101_dcni3_5x": {**_BASE, **_R_101, **_DCN_INTERVAL_3},
    "550_R_50_1x": {**_BASE, **_550},
    "550_R_50_3x": {**_BASE, **_550},
    "550_R_50_dcni3_5x": {**_BASE, **_550, **_DCN_INTERVAL_3},
    "RT_R_50_4x_syncbn_shtw": {**_BASE, **_RT_R_50},
    "RT_R_50_4x_bn-head_syncbn_shtw": {**_BASE, **_RT_R_50, "MODEL.FCOS.NORM": "SyncBN"},
    "DLA_34_syncbn_4x": {**_BASE, **_REAL_TIME, **_DLA_34},
    "Person_R_50_1x": {**_BASE, **_PERSON},
    "Panoptic_R_50_3x": {**_BASE, **_PANOPTIC},
    "Panoptic_R_101_3x": {**_BASE, **_R_101, **_PANOPTIC},
    "Panoptic_R_101_dcni3_5x": {**_BASE, **_R_101, **_DCN_INTERVAL_3, **_PANOPTIC},
}


def find_preset(name: str) -> str:
    """The preset's own name for `name`, which may be spelt as AdelaiDet's file: "Panoptic/R_50_3x.yaml".

    Raises:
        UsageError: there is none; the nearest are named.
    """
    by_lower = {known.lower(): known for known in PRESETS}
    plain = name.strip().lower().removesuffix(".yaml").replace("/", "_")
    if plain in by_lower:
        return by_lower[plain]
    near = [by_lower[match] for match in difflib.get_close_matches(plain, by_lower, 4, 0.5)]
    raise UsageError(
        f"There is no model '{name[:80]}': {'the nearest are' if near else 'known are'} {', '.join(near or PRESETS)}. "
        "Type: trt-blendmask zoo"
    )
