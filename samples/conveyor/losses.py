"""FCOS targets and BlendMask's losses (arXiv 2001.00309 section 3.3, arXiv 1904.01355 section 3).

Boxes are xyxy in network pixels. A location answers for the smallest box that contains it, has it near the centre and
has a size that belongs to the location's level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from samples.conveyor.model import BlendMask, Outputs

MASKS_PER_IMAGE = 20


@dataclass(frozen=True)
class Batch:
    """One training batch. Instances of image n are the rows with `owner` n; their pixels in `ids[n]` are `number`.

    images float32 [N,3,H,W] minus the mean; boxes float32 [I,4]; classes, owner, number int64 [I];
    ids uint8 [N,H0,W0] = 0 or the number of the instance seen there, in the scene before it was zoomed and flipped;
    affine float32 [N,4] = (ax, bx, ay, by) with scene_x = ax * x + bx for network coordinates.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    owner: Tensor
    number: Tensor
    ids: Tensor
    affine: Tensor

    def to(self, device: str) -> Batch:
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Targets:
    """Positive locations.

    where int64 [P,4] = (level, image, y, x), instance int64 [P], distances [P,4] in strides, centerness [P].
    """

    where: Tensor
    instance: Tensor
    distances: Tensor
    centerness: Tensor


def assign(batch: Batch, sizes: list[tuple[int, int]], model: BlendMask) -> Targets:
    """Gives each location of each level of feature `sizes` (h, w) at most one instance."""
    cfg, device = model.cfg, batch.boxes.device
    limits = [0.0, *map(float, cfg.sizes_of_interest), float("inf")]
    centres = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2
    areas = (batch.boxes[:, 2:] - batch.boxes[:, :2]).prod(1)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for level, ((h, w), stride) in enumerate(zip(sizes, cfg.strides, strict=True)):
        y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
        places = torch.stack([x, y], -1).reshape(-1, 2)
        xy = places * stride + stride // 2
        sides = torch.cat([xy[None] - batch.boxes[:, None, :2], batch.boxes[:, None, 2:] - xy[None]], -1)
        near = (xy[None] - centres[:, None]).abs().amax(-1) < cfg.radius * stride
        longest = sides.amax(-1)
        fits = (longest >= limits[level]) & (longest <= limits[level + 1])
        candidate = near & fits & (sides.amin(-1) > 0)
        cost = torch.where(candidate, areas[:, None], float("inf"))
        for image in range(len(batch.images)):
            mine = (batch.owner == image).nonzero()[:, 0]
            if not len(mine):
                continue
            best, which = cost[mine].min(0)
            place = torch.isfinite(best).nonzero()[:, 0]
            instance = mine[which[place]]
            head = torch.tensor([level, image], device=device).expand(len(place), 2)
            where = torch.cat([head, places[place].flip(1)], 1)
            found.append((where, instance, sides[instance, place] / stride))
    where, instance, distances = (torch.cat(part) for part in zip(*found, strict=True))
    low = torch.minimum(distances[:, :2], distances[:, 2:]).clamp(min=0)
    centerness = (low / torch.maximum(distances[:, :2], distances[:, 2:])).prod(1).sqrt()
    return Targets(where, instance, distances, centerness)


def pick(maps: list[Tensor], where: Tensor) -> Tensor:
    """Values [P,C] of per-level maps [N,C,h,w] at `where`."""
    values = torch.zeros(len(where), maps[0].shape[1], device=maps[0].device)
    for level, part in enumerate(maps):
        chosen = (where[:, 0] == level).nonzero()[:, 0]
        n, y, x = where[chosen, 1:].unbind(1)
        values = values.index_put((chosen,), part.float().permute(0, 2, 3, 1)[n, y, x])
    return values


def focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    p = logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = p + target - 2 * p * target
    return ((alpha * target + (1 - alpha) * (1 - target)) * missed**gamma * cross).sum()


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU [P] of boxes given as distances (l,t,r,b) from the same location."""
    area = (predicted[:, 0] + predicted[:, 2]) * (predicted[:, 1] + predicted[:, 3])
    target_area = (target[:, 0] + target[:, 2]) * (target[:, 1] + target[:, 3])
    low, high = torch.minimum(predicted, target), torch.maximum(predicted, target)
    overlap = (low[:, 0] + low[:, 2]) * (low[:, 1] + low[:, 3])
    hull = (high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])
    union = area + target_area - overlap
    return 1 - (overlap + 1e-6) / (union + 1e-6) + (hull - union) / (hull + 1e-6)


def cell_centres(boxes: Tensor, size: int) -> Tensor:
    """Centres [P,R,R,2] (x, y) of the cells of an RxR grid laid over boxes [P,4]."""
    step = (torch.arange(size, device=boxes.device) + 0.5) / size
    x = boxes[:, None, 0] + (boxes[:, 2] - boxes[:, 0])[:, None] * step
    y = boxes[:, None, 1] + (boxes[:, 3] - boxes[:, 1])[:, None] * step
    return torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1)


def blend(bases: Tensor, boxes: Tensor, owner: Tensor, attention: Tensor, size: int, m: int) -> Tensor:
    """Mask logits [P,R,R]: RoIAlign (aligned, one sample a cell) of bases [N,K,h,w], weighted by the attention."""
    k, h, w = bases.shape[1:]
    places = cell_centres(boxes / 4, size)  # at stride 4; cell (0,0) of the bases is centred at 0.5
    limit = torch.tensor([w, h], device=boxes.device)
    inside = ((places >= -0.5) & (places <= limit + 0.5)).all(-1)
    pooled = torch.zeros(len(boxes), k, size, size, device=boxes.device)
    for image in owner.unique().tolist():
        mine = (owner == image).nonzero()[:, 0]
        grid = (places[mine].reshape(1, -1, size, 2) / limit) * 2 - 1
        roi = F.grid_sample(bases[image : image + 1], grid, padding_mode="border", align_corners=False)
        pooled = pooled.index_put((mine,), roi.reshape(k, -1, size, size).transpose(0, 1))
    weights = F.interpolate(attention.view(-1, k, m, m), size=(size, size), mode="bilinear").softmax(1)
    return (pooled * weights).sum(1) * inside


def mask_targets(batch: Batch, boxes: Tensor, instance: Tensor, size: int) -> Tensor:
    """Truth [P,R,R] in 0..1 inside boxes [P,4]: bilinear samples of the scene's own pixels, so a zoom loses nothing."""
    a = batch.affine[batch.owner[instance]][:, None, None]
    places = cell_centres(boxes, size)
    x, y = a[..., 0] * places[..., 0] + a[..., 1] - 0.5, a[..., 2] * places[..., 1] + a[..., 3] - 0.5
    h, w = batch.ids.shape[1:]
    x0, y0 = x.floor(), y.floor()
    fx, fy = x - x0, y - y0
    image, number = batch.owner[instance][:, None, None], batch.number[instance][:, None, None]

    def seen(xi: Tensor, yi: Tensor) -> Tensor:
        return (batch.ids[image, yi.long().clamp(0, h - 1), xi.long().clamp(0, w - 1)] == number).float()

    top = seen(x0, y0) * (1 - fx) + seen(x0 + 1, y0) * fx
    bottom = seen(x0, y0 + 1) * (1 - fx) + seen(x0 + 1, y0 + 1) * fx
    return top * (1 - fy) + bottom * fy


def mask_loss(model: BlendMask, out: Outputs, batch: Batch, targets: Targets, rng: torch.Generator) -> Tensor:
    """Cross entropy plus dice at a random share of the positives, in their true boxes moved by up to 4 % a side."""
    cfg = model.cfg
    count = min(len(targets.where), MASKS_PER_IMAGE * len(batch.images))
    chosen = torch.randperm(len(targets.where), generator=rng)[:count].to(batch.boxes.device)
    instance, weight = targets.instance[chosen], targets.centerness[chosen]
    boxes = batch.boxes[instance]
    moved = (torch.rand(len(boxes), 4, generator=rng) * 2 - 1).to(boxes.device) * 0.04
    boxes = boxes + moved * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    truth = mask_targets(batch, boxes, instance, cfg.mask_size)
    attention = model.attention_at(out.towers, targets.where[chosen]).float()
    owner = batch.owner[instance]
    logits = blend(out.bases.float(), boxes, owner, attention, cfg.mask_size, cfg.attention_size)
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
    p = logits.sigmoid()
    dice = 1 - (2 * (p * truth).sum((1, 2)) + 1) / ((p**2).sum((1, 2)) + (truth**2).sum((1, 2)) + 1)
    return ((cross + dice) * weight).sum() / weight.sum().clamp(min=1e-6)


def segmentation_loss(model: BlendMask, out: Outputs, batch: Batch) -> Tensor:
    """Per-pixel classes at stride 8, from P3: a dense signal that speeds up the first hours; training only."""
    head = model.basis_module.seg_head
    if head is None:
        return out.bases.new_zeros(())
    logits = head(out.p3).float()
    h, w = logits.shape[2:]
    table = torch.zeros(len(batch.images), 256, dtype=torch.long, device=logits.device)
    table[batch.owner, batch.number] = batch.classes + 1
    x, y = torch.arange(w, device=logits.device) * 8 + 4.0, torch.arange(h, device=logits.device) * 8 + 4.0
    a, limit = batch.affine, batch.ids.shape
    xi = (a[:, :1] * x + a[:, 1:2]).long().clamp(0, limit[2] - 1)
    yi = (a[:, 2:3] * y + a[:, 3:]).long().clamp(0, limit[1] - 1)
    image = torch.arange(len(batch.images), device=logits.device)
    ids = batch.ids[image[:, None, None], yi[:, :, None], xi[:, None, :]].long()
    truth = table[image[:, None, None], ids]
    return F.cross_entropy(logits, truth) * model.cfg.seg_weight


def losses(model: BlendMask, out: Outputs, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
    """The five terms whose sum is minimised."""
    sizes = [(part.shape[2], part.shape[3]) for part in out.logits]
    targets = assign(batch, sizes, model)
    positives = max(1, len(targets.where))
    truth = [torch.zeros_like(part, dtype=torch.float32) for part in out.logits]
    classes = batch.classes[targets.instance]
    for level, part in enumerate(truth):
        chosen = targets.where[:, 0] == level
        n, y, x = targets.where[chosen, 1:].unbind(1)
        part[n, classes[chosen], y, x] = 1.0
    pairs = zip(out.logits, truth, strict=True)
    terms = {"class": torch.stack([focal(a.float(), b) for a, b in pairs]).sum() / positives}
    weight, total = targets.centerness, targets.centerness.sum().clamp(min=1e-6)
    boxes = giou_loss(pick(out.distances, targets.where), targets.distances)
    terms["box"] = 2.0 * (boxes * weight).sum() / total
    centre = pick(out.centerness, targets.where)[:, 0]
    terms["centerness"] = F.binary_cross_entropy_with_logits(centre, targets.centerness)
    terms["mask"] = mask_loss(model, out, batch, targets, rng)
    terms["segmentation"] = segmentation_loss(model, out, batch)
    return terms
