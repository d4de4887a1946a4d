"""The CUDA source of one kernel: plugins/roi_align_blend_kernel.cuh with everything but the tensors a constant."""

from __future__ import annotations

from trt_blendmask.aot.launch import Launch, attention_scale
from trt_blendmask.aot.params import BYTES, BlendParams

ENTRY = "roi_align_blend_aot"

# The arguments are those that TensorRT gives a quick plugin's kernel: inputs, scalars (none here), outputs.
TEMPLATE = """\
#include "roi_align_blend_kernel.cuh"

using namespace trt_blendmask;

extern "C" __global__ void __launch_bounds__(kThreads, resident_blocks({k}, sizeof({element})))
    {entry}(const void* bases, const float* boxes, const void* attention, const int32_t* count, void* masks) {{
  const BlendGeometry geometry = {{{geometry}}};
  const RoiAlignBlendParams params = {{geometry, {rest}}};
  const Band band = {{{band}}};
  const RoiAlignBlendTensors tensors = {{bases, boxes, attention, count, masks}};
  blend_block<{element}, {k}, {packed}>(params, band, tensors);
}}
"""


def kernel_source(params: BlendParams, launch: Launch) -> str:
    """CUDA C++17 of the entry `ENTRY`, which must be launched as `launch` says."""
    p = params
    geometry = (
        *(p.num_bases, p.bases_h, p.bases_w, p.mask_size, p.attention_size),
        *(_float(p.spatial_scale), p.sampling_ratio, _bool(p.aligned)),
        f"Interpolation::{'kNearest' if p.attention_interpolation == 'nearest' else 'kBilinear'}",
        f"Activation::{'kSigmoid' if p.activation == 'sigmoid' else 'kNone'}",
    )
    rest = (
        *(p.batch, p.detections, _type(p.bases_type)),
        *(f"BasesLayout::{'kPixels' if p.pixel_channels else 'kPlanes'}", p.pixel_channels or p.num_bases),
        *(_type(p.attention_type), _type(p.masks_type)),
    )
    band = (launch.run, launch.rows, launch.attention_bytes, _float(float(attention_scale(p))))
    return TEMPLATE.format(
        entry=ENTRY,
        element="float" if p.bases_type == "float32" else "__half",
        k=launch.register_bases,
        packed=_bool(launch.packed),
        geometry=", ".join(map(str, geometry)),
        rest=", ".join(map(str, rest)),
        band=", ".join(map(str, band)),
    )


def _type(name: str) -> str:
    return f"ElementType::{dict(zip(BYTES, ('kFloat32', 'kFloat16'), strict=True))[name]}"


def _float(value: float) -> str:
    return f"{value.hex()}f"  # to the last bit


def _bool(value: bool) -> str:
    return "true" if value else "false"
