"""Feature pyramid (detectron2 modeling/backbone/fpn.py) with AdelaiDet's P6 and P7 on top of P5."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_blendmask.export.config import BlendMaskConfig
from trt_blendmask.export.layers import Conv, GraphBuilder


def fpn(builder: GraphBuilder, config: BlendMaskConfig, stages: dict[int, gs.Variable]) -> list[gs.Variable]:
    """Add the pyramid on res3, res4, res5.

    Returns:
        P3, P4, P5 and the `top_levels` above, `fpn_channels` each.
    """
    channels, norm = config.fpn_channels, config.fpn_norm
    why = f"MODEL.FPN.OUT_CHANNELS {channels}"

    def conv(part: str, level: int, kernel: int, x: gs.Variable) -> gs.Variable:
        key = f"backbone.fpn_{part}{level}"
        layer = Conv(key, channels, kernel, why, bias=not norm, norm=norm, norm_key=f"{key}.norm")
        return builder.conv_norm(f"fpn.{part}{level}", x, layer)

    outputs: list[gs.Variable] = []
    above: gs.Variable | None = None
    for level in (5, 4, 3):
        merged = conv("lateral", level, 1, stages[level])
        if above is not None:
            enlarged = builder.upsample(f"fpn.upsample{level + 1}", above, 2, linear=False)
            merged = builder.add(f"fpn.merge{level}", merged, enlarged)
        above = merged
        outputs.insert(0, conv("output", level, 3, merged))
    for level in range(6, 6 + config.top_levels):
        x = outputs[-1]
        if level == 7:  # P6 itself is not rectified, only what P7 is made from
            x = builder.relu("fpn.p6.relu", x)
        layer = Conv(
            f"backbone.top_block.p{level}",
            channels,
            3,
            f"{why}, FCOS.TOP_LEVELS {config.top_levels}",
            2,
        )
        outputs.append(builder.conv_norm(f"fpn.p{level}", x, layer))
    return outputs
