"""Calls of the operator, as the ahead-of-time tail is told of them."""

from __future__ import annotations

import numpy as np

from tests.plugin.twins import Case
from trt_blendmask.aot.params import BlendParams


def blend_params(case: Case) -> BlendParams:
    """The same as `case.params()`."""
    return BlendParams(
        num_bases=case.num_bases,
        bases_h=case.bases.shape[2],
        bases_w=case.bases.shape[3],
        mask_size=case.mask_size,
        attention_size=case.attention_size,
        spatial_scale=case.spatial_scale,
        sampling_ratio=case.sampling_ratio,
        aligned=case.aligned,
        attention_interpolation="nearest" if case.nearest else "bilinear",
        activation="sigmoid" if case.sigmoid else "none",
        batch=len(case.bases),
        detections=case.boxes.shape[1],
        bases_type=np.dtype(case.bases_type).name,
        attention_type=np.dtype(case.attention_type).name,
        masks_type=np.dtype(case.masks_type).name,
        pixel_channels=case.channels,
    )
