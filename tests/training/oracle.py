"""The network of any AdelaiDet BlendMask configuration in PyTorch: the sample's, and what the sample has no need of.

That is DLA-34, deformable and grouped convolution, norms in the pyramid, ProtoNet on fewer levels. Written out from the
definitions (arXiv 1707.06484, 1811.11168), not from the exporter; keys are AdelaiDet's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import Tensor, nn

from samples.conveyor.config import BLOCKS, Config
from samples.conveyor.model import BlendMask, ConvNorm, FeaturePyramid, ProtoNet, Residual, Tower, make_norm, resize

DLA = "build_fcos_dla_fpn_backbone"


def network(path: Path, dla_channels: tuple[int, ...] = ()) -> BlendMask:
    """The network of a YAML (complete, no `_BASE_`), weights as PyTorch makes them."""
    tree = yaml.safe_load(path.read_text())["MODEL"]
    res, fcos, fpn, basis = tree["RESNETS"], tree["FCOS"], tree["FPN"], tree["BASIS_MODULE"]
    cfg = Config.read(path)
    groups = res.get("NUM_GROUPS", 1)
    cfg = replace(cfg, width_per_group=groups * cfg.width_per_group)
    model = BlendMask(cfg)
    if tree["BACKBONE"]["NAME"] == DLA:
        model.backbone.bottom_up = DLA34(dla_channels, tree["DLA"]["NORM"])
        for level, channels in zip((3, 4, 5), dla_channels[3:], strict=True):
            model.backbone.add_module(f"fpn_lateral{level}", nn.Conv2d(channels, cfg.fpn_channels, 1))
    elif cfg.depth >= 50:
        special_convolutions(model.backbone, cfg, groups, res)
    if fpn.get("NORM", ""):
        for level in (3, 4, 5):
            for part, kernel in (("lateral", 1), ("output", 3)):
                old = model.backbone.get_submodule(f"fpn_{part}{level}")
                assert isinstance(old, nn.Conv2d)
                new = ConvNorm(old.in_channels, old.out_channels, kernel, 1, fpn["NORM"])
                model.backbone.add_module(f"fpn_{part}{level}", new)
    if fcos.get("USE_DEFORMABLE", False):
        head = model.proposal_generator.fcos_head
        for tower, count in ((head.cls_tower, cfg.cls_convs), (head.bbox_tower, cfg.box_convs)):
            make_last_deformable(tower, count, cfg)
    model.basis_module = FewerLevels(cfg, len(basis.get("IN_FEATURES", "345")))
    return model.eval()


class FewerLevels(ProtoNet):
    """ProtoNet on the first levels only."""

    def __init__(self, cfg: Config, count: int) -> None:
        super().__init__(cfg)
        self.refine = self.refine[:count]

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        merged = self.refine[0](pyramid[0])
        for refine, feature in zip(list(self.refine)[1:], pyramid[1:], strict=False):
            merged = merged + resize(refine(feature), (merged.shape[2], merged.shape[3]))
        bases: Tensor = self.tower(merged)
        return bases


def special_convolutions(backbone: FeaturePyramid, cfg: Config, groups: int, res: dict[str, Any]) -> None:
    """Gives the blocks that should have them grouped and deformable 3x3 convolutions."""
    flags = res.get("DEFORM_ON_PER_STAGE", [False] * 4)
    for stage, count in enumerate(BLOCKS[cfg.depth]):
        for index in range(count):
            block = backbone.bottom_up.get_submodule(f"res{stage + 2}.{index}")
            assert isinstance(block, Residual)
            old = block.conv2
            plain = nn.Conv2d(old.in_channels, old.out_channels, 3, old.stride, 1, bias=False, groups=groups)
            offset = None
            if flags[stage] and index % res.get("DEFORM_INTERVAL", 1) == 0:
                parts = 27 if res.get("DEFORM_MODULATED", False) else 18
                total = parts * res.get("DEFORM_NUM_GROUPS", 1)
                offset = block.conv2_offset = nn.Conv2d(old.in_channels, total, 3, old.stride, 1)
            block.conv2 = GroupedOrDeformable(plain, offset, res, cfg.backbone_norm)  # type: ignore[assignment]


class GroupedOrDeformable(nn.Module):
    def __init__(self, plain: nn.Conv2d, offset: nn.Conv2d | None, res: dict[str, Any], norm: str) -> None:
        super().__init__()
        self.weight, self.norm = plain.weight, make_norm(norm, plain.out_channels)
        self.borrowed = [plain, offset]  # in a list: their keys are not below this module
        self.groups, self.stride = plain.groups, plain.stride[0]
        self.offset_groups, self.modulated = res.get("DEFORM_NUM_GROUPS", 1), res.get("DEFORM_MODULATED", False)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.borrowed[1]
        if offset is None:
            y = F.conv2d(x, self.weight, None, self.stride, 1, 1, self.groups)
        else:
            raw = offset(x)
            y = deformed(x, raw, self.weight, self.stride, self.groups, self.offset_groups, self.modulated)
        normed: Tensor = self.norm(y)
        return normed


class DeformableLayer(nn.Module):
    """Keys `.offset` and `.conv`, as in the towers of USE_DEFORMABLE."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 27, 3, padding=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.conv.bias is not None
        return deformed(x, self.offset(x), self.conv.weight, 1, 1, 1, True) + self.conv.bias[:, None, None]


def make_last_deformable(tower: Tower, count: int, cfg: Config) -> None:
    if count:
        tower[len(tower) // count * (count - 1)] = DeformableLayer(cfg.fpn_channels)


def deformed(
    x: Tensor, raw: Tensor, weight: Tensor, stride: int, groups: int, offset_groups: int, modulated: bool
) -> Tensor:
    """Tap after tap, each of its four neighbours looked up by index; places outside the picture count as 0."""
    (height, width), (h, w) = x.shape[2:], raw.shape[2:]
    split = raw[:, : 18 * offset_groups].unflatten(1, (offset_groups, 9, 2))
    parts = x.unflatten(1, (offset_groups, -1))
    rows = torch.arange(h, dtype=x.dtype)[:, None] * stride
    columns = torch.arange(w, dtype=x.dtype) * stride
    taps = []
    for tap in range(9):
        row = rows + tap // 3 - 1 + split[:, :, tap, 0]
        column = columns + tap % 3 - 1 + split[:, :, tap, 1]
        total = torch.zeros(*parts.shape[:3], h, w, dtype=x.dtype)
        for below in (0, 1):
            for right in (0, 1):
                y, z = row.floor() + below, column.floor() + right
                share = (1 - (row - y).abs()) * (1 - (column - z).abs())
                inside = (y >= 0) & (y < height) & (z >= 0) & (z < width)
                index = (y.clamp(0, height - 1) * width + z.clamp(0, width - 1)).long().flatten(2)
                found = parts.flatten(3).gather(3, index[:, :, None].expand(-1, -1, parts.shape[2], -1))
                total = total + found.unflatten(3, (h, w)) * (share * inside)[:, :, None]
        if modulated:
            logits = raw[:, 18 * offset_groups :].unflatten(1, (offset_groups, 9))[:, :, tap]
            total = total * logits.sigmoid()[:, :, None]
        taps.append(total.flatten(1, 2))
    samples = torch.stack(taps, 2).unflatten(1, (groups, -1))  # [N, groups, C / groups, 9, h, w]
    kernels = weight.flatten(2).unflatten(0, (groups, -1))
    return torch.einsum("goct,ngcthw->ngohw", kernels, samples).flatten(1, 2)


class DLA34(nn.Module):
    """Gives level3, level4, level5 (strides 8, 16, 32)."""

    def __init__(self, channels: tuple[int, ...], norm: str) -> None:
        super().__init__()
        first = channels[0]
        self.base_layer = conv_norm_relu(3, first, 7, 1, norm)
        self.level0 = conv_norm_relu(first, first, 3, 1, norm)
        self.level1 = conv_norm_relu(first, channels[1], 3, 2, norm)
        self.level2 = Tree(channels[1], channels[2], 0, norm)
        self.level3 = TwoTrees(channels[2], channels[3], norm)
        self.level4 = TwoTrees(channels[3], channels[4], norm)
        self.level5 = Tree(channels[4], channels[5], channels[4], norm)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.level1(self.level0(self.base_layer(x)))
        x = self.level2(x, F.max_pool2d(x, 2), [])
        level3 = self.level3(x)
        level4 = self.level4(level3)
        pooled = F.max_pool2d(level4, 2)
        return [level3, level4, self.level5(level4, pooled, [pooled])]


class Tree(nn.Module):
    def __init__(self, cin: int, cout: int, more: int, norm: str) -> None:
        super().__init__()
        self.tree1, self.tree2 = Block(cin, cout, norm), Block(cout, cout, norm)
        self.root = nn.Module()
        self.root.conv = nn.Conv2d(2 * cout + more, cout, 1, bias=False)
        self.root.bn = make_norm(norm, cout)
        self.project = projection(cin, cout, norm)

    def forward(self, x: Tensor, shrunk: Tensor, more: list[Tensor]) -> Tensor:
        first = self.tree1(x, shrunk if self.project is None else self.project(shrunk))
        second = self.tree2(first, first)
        return F.relu(self.root.bn(self.root.conv(torch.cat([second, first, *more], 1))))


class TwoTrees(nn.Module):
    def __init__(self, cin: int, cout: int, norm: str) -> None:
        super().__init__()
        self.tree1, self.tree2 = Tree(cin, cout, 0, norm), Tree(cout, cout, cin + cout, norm)
        self.project = projection(cin, cout, norm)  # in every checkpoint, used by nothing

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2)
        first = self.tree1(x, pooled, [])
        joined: Tensor = self.tree2(first, first, [pooled, first])
        return joined


class Block(nn.Module):
    def __init__(self, cin: int, cout: int, norm: str) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(cin, cout, 3, padding=1, bias=False),
            nn.Conv2d(cout, cout, 3, 1, 1, bias=False),
        )
        self.bn1, self.bn2 = make_norm(norm, cout), make_norm(norm, cout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        stride = x.shape[2] // residual.shape[2]
        y = F.relu(self.bn1(F.conv2d(x, self.conv1.weight, None, stride, 1)))
        return F.relu(self.bn2(self.conv2(y)) + residual)


def projection(cin: int, cout: int, norm: str) -> nn.Sequential | None:
    return None if cin == cout else nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), make_norm(norm, cout))


def conv_norm_relu(cin: int, cout: int, kernel: int, stride: int, norm: str) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, make_norm(norm, cout), nn.ReLU())
