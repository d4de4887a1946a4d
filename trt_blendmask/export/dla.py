"""DLA-34 as AdelaiDet names and shapes it (adet/modeling/backbone/dla.py; deep layer aggregation, arXiv 1707.06484)."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from trt_blendmask.export.backbone_config import DLAConfig
from trt_blendmask.export.layers import Conv, GraphBuilder

PREFIX = "backbone.bottom_up"
# The convolution whose output channels are those of its level, and DLA-34's number.
CHANNELS = {
    "level0": ("level0.0", 16),
    "level1": ("level1.0", 32),
    "level2": ("level2.tree1.conv1", 64),
    "level3": ("level3.tree1.tree1.conv1", 128),
    "level4": ("level4.tree1.tree1.conv1", 256),
    "level5": ("level5.tree1.conv1", 512),
}


def dla34(builder: GraphBuilder, config: DLAConfig, images: gs.Variable) -> dict[int, gs.Variable]:
    """Add the backbone; the channels are those of the checkpoint. Level 0 is at the full resolution of the input.

    Returns:
        level3, level4, level5 under the keys 3, 4, 5: strides 8, 16, 32.
    """
    return _DLA(builder, config).stages(images)


class _DLA:
    def __init__(self, builder: GraphBuilder, config: DLAConfig) -> None:
        self.builder, self.norm = builder, config.norm
        self.why = f"MODEL.DLA CONV_BODY DLA34, NORM {config.norm}"
        self.channels = {
            level: builder.weights.channels(f"{PREFIX}.{key}.weight", usual) for level, (key, usual) in CHANNELS.items()
        }

    def stages(self, images: gs.Variable) -> dict[int, gs.Variable]:
        x = self.simple("base_layer", images, self.channels["level0"], 7, 1)
        x = self.simple("level0", x, self.channels["level0"], 3, 1)
        x = self.simple("level1", x, self.channels["level1"], 3, 2)
        x = self.tree("level2", x, self.pool("level2", x), [])
        found = {}
        for level in (3, 4):
            name = f"level{level}"
            pooled = self.pool(name, x)
            first = self.tree(f"{name}.tree1", x, pooled, [])
            x = found[level] = self.tree(f"{name}.tree2", first, first, [pooled, first])
        pooled = self.pool("level5", x)
        found[5] = self.tree("level5", x, pooled, [pooled])
        return found

    def tree(self, name: str, x: gs.Variable, shrunk: gs.Variable, more: list[gs.Variable]) -> gs.Variable:
        """Two residual blocks and the root that joins them with `more`; `shrunk` is `x` at the tree's resolution.

        A tree of trees has a projection of its own in the checkpoint (level3.project, level4.project) that nothing
        uses: the tree inside makes its own residual.
        """
        channels, residual = self.channels[name.split(".")[0]], shrunk
        if x.shape[1] != channels:
            residual = self.conv(f"{name}.project", shrunk, channels, 1, ("project.0", "project.1"))
        stride = x.shape[2] // shrunk.shape[2]
        x1 = self.block(f"{name}.tree1", x, residual, stride)
        x2 = self.block(f"{name}.tree2", x1, x1, 1)
        joined = self.builder.concat(f"backbone.{name}.root.concat", [x2, x1, *more])
        y = self.conv(f"{name}.root", joined, channels, 1, ("root.conv", "root.bn"))
        return self.builder.relu(f"backbone.{name}.root.relu", y)

    def block(self, name: str, x: gs.Variable, residual: gs.Variable, stride: int) -> gs.Variable:
        builder, channels = self.builder, residual.shape[1]
        y = self.conv(f"{name}.conv1", x, channels, 3, ("conv1", "bn1"), stride)
        y = builder.relu(f"backbone.{name}.conv1.relu", y)
        y = self.conv(f"{name}.conv2", y, channels, 3, ("conv2", "bn2"))
        return builder.relu(f"backbone.{name}.relu", builder.add(f"backbone.{name}.add", y, residual))

    def simple(self, name: str, x: gs.Variable, channels: int, kernel: int, stride: int) -> gs.Variable:
        y = self.conv(f"{name}.0", x, channels, kernel, ("0", "1"), stride)
        return self.builder.relu(f"backbone.{name}.relu", y)

    def conv(
        self, name: str, x: gs.Variable, channels: int, kernel: int, keys: tuple[str, str], stride: int = 1
    ) -> gs.Variable:
        """Convolution and norm; `name` ends with the first word of their `keys` below the parent."""
        parent = name.rpartition(".")[0]
        key, norm_key = (f"{PREFIX}.{parent}.{key}" for key in keys)
        conv = Conv(key, channels, kernel, self.why, stride, bias=False, norm=self.norm, norm_key=norm_key)
        return self.builder.conv_norm(f"backbone.{name}", x, conv)

    def pool(self, name: str, x: gs.Variable) -> gs.Variable:
        """2x2, stride 2, of the level's input; AdelaiDet pools it once more in the tree inside."""
        return self.builder.max_pool(f"backbone.{name}.max_pool", x, 2, 0)
