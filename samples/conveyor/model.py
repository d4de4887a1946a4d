"""A BlendMask in PyTorch whose state dict and YAML keys are AdelaiDet's (arXiv 2001.00309).

ResNet -> FPN -> FCOS head (boxes, centerness, attention) and ProtoNet (bases). Everything that can change between
configurations is read from the YAML; a checkpoint of AdelaiDet's own BlendMask with the same settings loads and gives
the same numbers. Images are float32 [N,3,H,W], BGR, 0..255 minus the mean, H and W multiples of 32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from samples.conveyor.config import BLOCKS, Config


class FrozenBatchNorm(nn.Module):
    """Batch norm whose four vectors never train: the form of checkpoints made with NORM FrozenBN."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-5)


def make_norm(kind: str, channels: int) -> nn.Module:
    """FrozenBN, BN or SyncBN (one machine: the same), GN with 32 groups, or "" for none."""
    if kind == "FrozenBN":
        return FrozenBatchNorm(channels)
    if kind in ("BN", "SyncBN"):
        return nn.BatchNorm2d(channels)
    if kind == "GN":
        return nn.GroupNorm(32, channels)
    if kind == "":
        return nn.Identity()
    raise ValueError(f"NORM {kind!r}: expected FrozenBN, BN, SyncBN, GN or an empty one")


class ConvNorm(nn.Conv2d):
    """Convolution without bias whose norm is a child called `norm`, as in detectron2's key names."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, norm: str) -> None:
        super().__init__(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = make_norm(norm, cout)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(super().forward(x))
        return y


class Residual(nn.Module):
    """Basic block (two 3x3) or, where `middle` is given, bottleneck (1x1, 3x3, 1x1)."""

    def __init__(self, cin: int, cout: int, stride: int, cfg: Config, middle: int | None) -> None:
        super().__init__()
        norm = cfg.backbone_norm
        self.shortcut = ConvNorm(cin, cout, 1, stride, norm) if cin != cout or stride != 1 else None
        if middle is None:
            self.conv1 = ConvNorm(cin, cout, 3, stride, norm)
            self.conv2 = ConvNorm(cout, cout, 3, 1, norm)
            self.conv3 = None
        else:
            first, second = (stride, 1) if cfg.stride_in_1x1 else (1, stride)
            self.conv1 = ConvNorm(cin, middle, 1, first, norm)
            self.conv2 = ConvNorm(middle, middle, 3, second, norm)
            self.conv3 = ConvNorm(middle, cout, 1, 1, norm)
        last = self.conv2 if self.conv3 is None else self.conv3
        if isinstance(last.norm, nn.BatchNorm2d):  # each block starts as the identity: faster from scratch
            nn.init.zeros_(last.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.conv3 is not None:
            y = self.conv3(F.relu(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Stem(nn.Module):
    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels, 7, 2, norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(nn.Module):
    """Gives res3, res4, res5 (strides 8, 16, 32)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.stem = Stem(cfg.stem_channels, cfg.backbone_norm)
        cin, cout = cfg.stem_channels, cfg.res2_channels
        middle = cfg.width_per_group if cfg.depth >= 50 else None
        self.channels: list[int] = []
        for stage, count in enumerate(BLOCKS[cfg.depth]):
            blocks = []
            for index in range(count):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(Residual(cin, cout, stride, cfg, middle))
                cin = cout
            self.add_module(f"res{stage + 2}", nn.Sequential(*blocks))
            self.channels.append(cout)
            cout, middle = cout * 2, middle * 2 if middle else None

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        found = []
        for stage in range(2, 6):
            x = self.get_submodule(f"res{stage}")(x)
            found.append(x)
        return found[1:]


class TopBlock(nn.Module):
    """P6, or P6 and P7, from P5; only P7's input is rectified."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if levels == 2 else None

    def forward(self, p5: Tensor) -> list[Tensor]:
        p6 = self.p6(p5)
        return [p6] if self.p7 is None else [p6, self.p7(F.relu(p6))]


class FeaturePyramid(nn.Module):
    """ResNet and FPN: P3, P4, P5 and the top levels that the configuration asks for."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.bottom_up = ResNet(cfg)
        for level, channels in zip((3, 4, 5), self.bottom_up.channels[1:], strict=True):
            self.add_module(f"fpn_lateral{level}", nn.Conv2d(channels, cfg.fpn_channels, 1))
            self.add_module(f"fpn_output{level}", nn.Conv2d(cfg.fpn_channels, cfg.fpn_channels, 3, padding=1))
        self.top_block = TopBlock(cfg.fpn_channels, cfg.top_levels) if cfg.top_levels else None
        for name, conv in self.named_modules():
            if isinstance(conv, nn.Conv2d) and not name.startswith("bottom_up"):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        above: Tensor | None = None
        for level, feature in zip((5, 4, 3), reversed(self.bottom_up(x)), strict=True):
            merged = self.get_submodule(f"fpn_lateral{level}")(feature)
            if above is not None:
                merged = merged + F.interpolate(above, scale_factor=2.0, mode="nearest")
            above = merged
            outputs.insert(0, self.get_submodule(f"fpn_output{level}")(merged))
        return outputs if self.top_block is None else outputs + self.top_block(outputs[-1])


class Tower(nn.ModuleList):
    """(conv3x3, norm, ReLU) * count, shared by all levels; NORM BN keeps one batch norm per level, none is left out."""

    def __init__(self, channels: int, count: int, norm: str, levels: int) -> None:
        super().__init__()
        for _ in range(count):
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)
            norms: list[nn.Module] = [make_norm(norm, channels)] if norm else []
            if norm in ("BN", "SyncBN"):
                norms = [nn.ModuleList(make_norm(norm, channels) for _ in range(levels))]
            self.extend([conv, *norms, nn.ReLU()])

    def run(self, x: Tensor, level: int) -> Tensor:
        for module in self:
            x = module[level](x) if isinstance(module, nn.ModuleList) else module(x)
        return x


class Scale(nn.Module):
    """One learned factor (USE_SCALE: one for the distances of each level)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class FCOSHead(nn.Module):
    def __init__(self, cfg: Config) -> None:
        super().__init__()
        channels, levels = cfg.fpn_channels, len(cfg.strides)
        self.share_tower = Tower(channels, cfg.share_convs, cfg.head_norm, levels)
        self.cls_tower = Tower(channels, cfg.cls_convs, cfg.head_norm, levels)
        self.bbox_tower = Tower(channels, cfg.box_convs, cfg.head_norm, levels)
        self.cls_logits = nn.Conv2d(channels, cfg.num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.ctrness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() if cfg.use_scale else nn.Identity() for _ in range(levels))
        # A rectified distance must not start at 0: there it has no gradient. Two strides suit a median part.
        for conv, bias in ((self.cls_logits, -math.log(99.0)), (self.bbox_pred, 2.0), (self.ctrness, 0.0)):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(conv.bias, bias)

    def forward(self, feature: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shared = self.share_tower.run(feature, level)
        tower = self.bbox_tower.run(shared, level)
        logits = self.cls_logits(self.cls_tower.run(shared, level))
        return logits, F.relu(self.scales[level](self.bbox_pred(tower))), self.ctrness(tower), tower


def conv_block(cin: int, cout: int, norm: str, kernel: int = 3) -> nn.Sequential:
    """Keys `.0` (conv without bias) and `.1` (norm)."""
    conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, make_norm(norm, cout), nn.ReLU())


def resize(x: Tensor, hw: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=hw, mode="bilinear", align_corners=False)


class ProtoNet(nn.Module):
    """Bases [N,K,H/4,W/4] from P3..P5. `seg_head` guides training only and is not shipped."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        dim, norm, channels = cfg.proto_channels, cfg.proto_norm, cfg.fpn_channels
        self.refine = nn.ModuleList(conv_block(channels, dim, norm) for _ in range(3))
        tower: list[nn.Module] = [conv_block(dim, dim, norm) for _ in range(cfg.proto_convs)]
        tower.append(nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False))
        tower.extend([conv_block(dim, dim, norm), nn.Conv2d(dim, cfg.num_bases, 1)])
        self.tower = nn.Sequential(*tower)
        self.seg_head: nn.Sequential | None = None
        if cfg.seg_head:
            first, second = conv_block(channels, dim, norm), conv_block(dim, dim, norm)
            self.seg_head = nn.Sequential(*first, *second, nn.Conv2d(dim, cfg.seg_classes + 1, 1))

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        merged = self.refine[0](pyramid[0])
        hw = (merged.shape[2], merged.shape[3])
        for refine, feature in zip(self.refine[1:], pyramid[1:3], strict=True):
            merged = merged + resize(refine(feature), hw)
        bases: Tensor = self.tower(merged)
        return bases


class FCOS(nn.Module):
    """Only the name space `proposal_generator` of AdelaiDet's keys."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.fcos_head = FCOSHead(cfg)


@dataclass(frozen=True)
class Outputs:
    """Per level: logits [N,C,h,w], distances [N,4,h,w] (l,t,r,b in strides), centerness [N,1,h,w], towers [N,F,h,w]."""

    bases: Tensor
    logits: list[Tensor]
    distances: list[Tensor]
    centerness: list[Tensor]
    towers: list[Tensor]
    p3: Tensor


class BlendMask(nn.Module):
    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.backbone = FeaturePyramid(cfg)
        self.proposal_generator = FCOS(cfg)
        self.basis_module = ProtoNet(cfg)
        self.top_layer = nn.Conv2d(cfg.fpn_channels, cfg.num_bases * cfg.attention_size**2, 3, padding=1)
        nn.init.normal_(self.top_layer.weight, std=0.01)
        nn.init.zeros_(self.top_layer.bias)

    def forward(self, images: Tensor) -> Outputs:
        pyramid = self.backbone(images)
        head = self.proposal_generator.fcos_head
        levels = [head(feature, level) for level, feature in enumerate(pyramid)]
        logits, distances, centerness, towers = (list(part) for part in zip(*levels, strict=True))
        return Outputs(self.basis_module(pyramid), logits, distances, centerness, towers, pyramid[0])

    def attention_at(self, towers: list[Tensor], where: Tensor) -> Tensor:
        """Attention [P, K*M*M] of the top layer at `where` [P,4] = (level, image, y, x) only: most places need none."""
        weight, bias = self.top_layer.weight, self.top_layer.bias
        patches = torch.zeros(len(where), weight[0].numel(), dtype=towers[0].dtype)
        patches = patches.to(towers[0].device)
        around = torch.arange(3, device=where.device)
        for level, tower in enumerate(towers):
            chosen = (where[:, 0] == level).nonzero()[:, 0]
            padded = F.pad(tower, (1, 1, 1, 1)).permute(0, 2, 3, 1)
            n, y, x = where[chosen, 1:].unbind(1)
            rows, columns = (y[:, None] + around)[:, :, None], (x[:, None] + around)[:, None, :]
            found = padded[n[:, None, None], rows, columns]  # [P, 3, 3, F]
            patches = patches.index_put((chosen,), found.flatten(1))
        return F.linear(patches, weight.permute(0, 2, 3, 1).flatten(1), bias)

    def raw_heads(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of AdelaiDet's ONNX exporter, by its names; for comparison with exported graphs."""
        out = self(images)
        named = {"bases": out.bases}
        for index in range(len(out.logits)):
            named[f"P{index + 3}logits"] = out.logits[index]
            named[f"P{index + 3}bbox_reg"] = out.distances[index]
            named[f"P{index + 3}centerness"] = out.centerness[index]
            named[f"P{index + 3}top_feats"] = self.top_layer(out.towers[index])
        return named


def load_weights(model: BlendMask, path: str | Path) -> None:
    """Loads a plain or wrapped state dict; only the training-only segmentation head may be missing or left over."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    wrong = [k for k in [*missing, *unexpected] if not k.startswith("basis_module.seg_head.")]
    if wrong:
        raise ValueError(f"{path}: not a checkpoint of this configuration, first wrong key {wrong[0]}")
