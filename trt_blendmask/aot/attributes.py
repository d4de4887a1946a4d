"""The attributes that RoiAlignBlendAot reads of its node: those of RoiAlignBlend, every one a single number.

tensorrt.plugin hands single numbers over unharmed as arrays of one. Of longer arrays and of strings it repeats the
first element (10.15 with numpy 2), and plain numbers it makes by int(array), which numpy refuses from 2.4 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
TYPES: dict[str, Any] = {
    "mask_size": Ints,
    "attention_size": Ints,
    "spatial_scale": Floats,
    "sampling_ratio": Ints,
    "aligned": Ints,
    "nearest": Ints,
    "sigmoid": Ints,
    "half_masks": Ints,
}


def encode(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """RoiAlignBlend's attributes, and its words as numbers besides; "aot" is what TensorRT's parser looks for."""
    return {
        **attributes,
        "nearest": int(attributes["attention_interpolation"] == "nearest"),
        "sigmoid": int(attributes["activation"] == "sigmoid"),
        "half_masks": int(attributes["mask_dtype"] == "float16"),
        "aot": 1,
    }


def decode(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """RoiAlignBlend's attributes, from arrays of one by the names of `TYPES`."""
    values = {name: array[0].item() for name, array in arrays.items()}
    return {
        **{name: values[name] for name in ("mask_size", "attention_size", "spatial_scale", "sampling_ratio")},
        "aligned": bool(values["aligned"]),
        "attention_interpolation": "nearest" if values["nearest"] else "bilinear",
        "activation": "sigmoid" if values["sigmoid"] else "none",
        "mask_dtype": "float16" if values["half_masks"] else "float32",
    }
