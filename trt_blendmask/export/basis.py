"""ProtoNet, which makes the bases from P3..P5 (adet/modeling/blendmask/basis_module.py)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_blendmask.export.config import BlendMaskConfig
from trt_blendmask.export.layers import Conv, GraphBuilder

PREFIX = "basis_module"


def protonet(builder: GraphBuilder, config: BlendMaskConfig, levels: list[gs.Variable]) -> gs.Variable:
    """Add ProtoNet on the pyramid.

    Returns:
        `bases` [N, K, H/4, W/4], linear. Layers are numbered as in the checkpoint: `basis.tower.{convs}` upsamples.
    """
    basis = config.basis
    why = f"MODEL.BASIS_MODULE CONVS_DIM {basis.channels}, NUM_CONVS {basis.convs}, NORM {basis.norm}"

    def block(name: str, x: gs.Variable) -> gs.Variable:
        key = f"{PREFIX}.{name}"
        conv = Conv(f"{key}.0", basis.channels, 3, why, bias=False, norm=basis.norm, norm_key=f"{key}.1")
        return builder.relu(f"basis.{name}.relu", builder.conv_norm(f"basis.{name}", x, conv))

    x = block("refine.0", levels[0])
    for index, level in enumerate(basis.in_levels[1:], start=1):
        y = block(f"refine.{index}", levels[level - 3])
        y = builder.upsample(f"basis.upsample{level}", y, 2 ** (level - 3), linear=True)
        x = builder.add(f"basis.merge{level}", x, y)
    for index in range(basis.convs):
        x = block(f"tower.{index}", x)
    x = builder.upsample(f"basis.tower.{basis.convs}", x, 2, linear=True)
    x = block(f"tower.{basis.convs + 1}", x)
    last = f"tower.{basis.convs + 2}"
    conv = Conv(f"{PREFIX}.{last}", config.num_bases, 1, f"MODEL.BASIS_MODULE.NUM_BASES {config.num_bases}")
    return builder.conv_norm(f"basis.{last}", x, conv, output="bases")
