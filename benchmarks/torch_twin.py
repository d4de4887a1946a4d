"""A deployable network in PyTorch, as one would write it there for speed: what an engine is compared with.

The network is the one of samples/conveyor (AdelaiDet's, key for key, its dense top included); the selection has fixed
shapes and no wait for the GPU, so that `torch.compile` takes all of it. Suppression makes `ROUNDS` passes over the
candidates where the deployable graph makes as many as it takes: fewer, in PyTorch's favour.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import Tensor, nn

from benchmarks.raw_head import draw_weights
from samples.conveyor.config import Config
from samples.conveyor.model import BlendMask
from trt_blendmask.export.presets import PRESETS

ROUNDS = 8
CANDIDATES = 1000


class TorchTwin(nn.Module):
    """uint8 [1, H, W, 3] BGR on the device: count [1], boxes [1, D, 4], scores, classes [1, D], masks [1, D, R, R]."""

    mean: Tensor

    def __init__(self, network: BlendMask, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.cfg, self.dtype = network.to(dtype), network.cfg, dtype
        self.register_buffer("mean", torch.tensor(network.cfg.pixel_mean, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = (images.permute(0, 3, 1, 2).float() - self.mean).to(self.dtype)
        out = self.network(pixels.contiguous(memory_format=torch.channels_last))
        parts = [self._level(out, level) for level in range(len(self.cfg.strides))]
        scores, classes, boxes, places = (torch.cat(part) for part in zip(*parts, strict=True))
        attention = torch.cat([self.network.top_layer(tower)[0].flatten(1).T for tower in out.towers])
        starts = [0]
        for logits in out.logits:
            starts.append(starts[-1] + logits.shape[2] * logits.shape[3])
        offsets = torch.cat([torch.full_like(part[3], start) for part, start in zip(parts, starts, strict=False)])
        places = places + offsets
        scores, best = scores.topk(min(CANDIDATES, len(scores)))
        classes, boxes, places = classes[best], boxes[best], places[best]
        scores = torch.where(self._survive(boxes, classes, scores), scores, 0)
        scores, best = scores.topk(min(self.cfg.max_detections, len(scores)))
        filled = scores > 0
        boxes = boxes[best] * filled[:, None]
        masks = self._blend(out.bases.float(), boxes, attention[places[best]].float()) * filled[:, None, None]
        classes = torch.where(filled, classes[best], -1).int()
        return filled.sum(dtype=torch.int32)[None], boxes[None], scores.sqrt()[None], classes[None], masks[None]

    def _level(self, out: Any, level: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best candidates of a level: quality, class, box, place."""
        stride, width = self.cfg.strides[level], out.logits[level].shape[3]
        quality = out.logits[level][0].float().sigmoid() * out.centerness[level][0].float().sigmoid()
        quality = torch.where(quality > self.cfg.score_threshold, quality, 0).flatten(1).T.reshape(-1)
        quality, best = quality.topk(min(self.cfg.pre_nms_topk, len(quality)))
        place = torch.div(best, self.cfg.num_classes, rounding_mode="floor")
        centre = torch.stack([place % width, torch.div(place, width, rounding_mode="floor")], 1) * stride + stride // 2
        sides = out.distances[level][0].float().flatten(1).T[place] * stride
        return quality, best % self.cfg.num_classes, torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], 1), place

    def _survive(self, boxes: Tensor, classes: Tensor, scores: Tensor) -> Tensor:
        """Which of the candidates, best first, no better one of their class suppresses."""
        low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        overlap = (high - low).clamp(min=0).prod(2)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        union = areas[:, None] + areas[None, :] - overlap
        rivals = (overlap > self.cfg.nms_threshold * union) & (classes[:, None] == classes[None, :])
        rivals = rivals.triu(1) & (scores > 0)[:, None]
        kept = scores > 0
        for _ in range(ROUNDS):
            kept = (scores > 0) & ~(rivals & kept[:, None]).any(0)
        return kept

    def _blend(self, bases: Tensor, boxes: Tensor, attention: Tensor) -> Tensor:
        """Masks [D, R, R]: bases under each box (RoIAlign, aligned, one sample a cell), weighted by the attention."""
        k, height, width = bases.shape[1:]
        side, m = self.cfg.mask_size, self.cfg.attention_size
        step = (torch.arange(side, device=boxes.device) + 0.5) / side
        x = boxes[:, :1] / 4 + (boxes[:, 2:3] - boxes[:, :1]) / 4 * step
        y = boxes[:, 1:2] / 4 + (boxes[:, 3:] - boxes[:, 1:2]) / 4 * step
        inside_x, inside_y = (x >= -0.5) & (x <= width + 0.5), (y >= -0.5) & (y <= height + 0.5)
        columns, rows = (x / width * 2 - 1)[:, None].expand(-1, side, -1), (y / height * 2 - 1)[:, :, None]
        grid = torch.stack([columns, rows.expand(-1, -1, side)], -1).reshape(1, -1, side, 2)
        pooled = F.grid_sample(bases, grid, padding_mode="border", align_corners=False)
        pooled = pooled.reshape(k, -1, side, side).transpose(0, 1)
        weights = F.interpolate(attention.view(-1, k, m, m), size=(side, side), mode="bilinear").softmax(1)
        return ((pooled * weights).sum(1) * inside_x[:, None, :] * inside_y[:, :, None]).sigmoid()


def torch_twin(preset: str, device: str, dtype: torch.dtype, seed: int = 0) -> TorchTwin:
    """The network of `write_drawn(preset, ..., seed)`."""
    network = BlendMask(_config(preset)).eval()
    state = {key: torch.from_numpy(value) for key, value in draw_weights(preset, seed).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [key for key in [*missing, *unexpected] if "num_batches_tracked" not in key and ".seg_head." not in key]
    if wrong:
        raise ValueError(f"{preset}: its weights have other names in PyTorch, the first is {wrong[0]}")
    twin = TorchTwin(network, dtype)
    twin.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    return twin


def _config(preset: str) -> Config:
    tree: dict[str, Any] = {"MODEL": {"RESNETS": {}, "FPN": {}, "FCOS": {}, "BLENDMASK": {}, "BASIS_MODULE": {}}}
    for dotted, value in PRESETS[preset].items():
        *path, last = dotted.split(".")
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(tree))
        return Config.read(file)
