"""Detections of the PyTorch model and their COCO AP: the curves during training, and `train.py --evaluate`."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from samples.conveyor.data import Scenes, letterbox
from samples.conveyor.losses import blend
from samples.conveyor.model import BlendMask, Outputs
from trt_blendmask import synthetic


def iou(box: Tensor, others: Tensor) -> Tensor:
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    overlap = (high - low).clamp(min=0).prod(1)
    return overlap / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - overlap)


def class_nms(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, limit: int) -> Tensor:
    """Indices of the first `limit` that survive class-wise NMS, best score first."""
    order = scores.sort(descending=True, stable=True).indices
    kept: list[Tensor] = []
    while len(order) and len(kept) < limit:
        best, order = order[0], order[1:]
        kept.append(best)
        rival = (iou(boxes[best], boxes[order]) > threshold) & (classes[order] == classes[best])
        order = order[~rival]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


def select(model: BlendMask, out: Outputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one image: boxes [D,4] xyxy unclipped, scores, classes, where [D,4] (level, image, y, x).

    As AdelaiDet: threshold on class * centerness, the best PRE_NMS_TOPK a level, scores are square roots, NMS by class.
    """
    cfg = model.cfg
    parts = []
    for level, stride in enumerate(cfg.strides):
        quality = out.logits[level][0].float().sigmoid() * out.centerness[level][0].float().sigmoid()
        c, y, x = (quality > cfg.score_threshold).nonzero(as_tuple=True)
        value = quality[c, y, x]
        if len(value) > cfg.pre_nms_topk:
            value, top = value.topk(cfg.pre_nms_topk)
            c, y, x = c[top], y[top], x[top]
        place = torch.stack([x, y], 1) * stride + stride // 2
        sides = out.distances[level][0].float()[:, y, x].T * stride
        boxes = torch.cat([place - sides[:, :2], place + sides[:, 2:]], 1)
        where = torch.stack([torch.full_like(y, level), torch.zeros_like(y), y, x], 1)
        parts.append((boxes, value.sqrt(), c, where))
    boxes, scores, classes, where = (torch.cat(p) for p in zip(*parts, strict=True))
    keep = class_nms(boxes, scores, classes, cfg.nms_threshold, cfg.max_detections)
    return boxes[keep], scores[keep], classes[keep], where[keep]


def paste(masks: Tensor, boxes: Tensor, hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Box-local probabilities [D,R,R] to binary [D,H,W]: bilinear, zero outside, 1 where >= 0.5."""
    h, w = hw
    x = (torch.arange(w) + 0.5 - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    y = (torch.arange(h) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack([x[:, None, :].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], -1)
    soft = F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
    binary: NDArray[np.uint8] = (soft >= 0.5).numpy().astype(np.uint8)
    return binary


@torch.no_grad()
def detect(model: BlendMask, image: NDArray[np.uint8], device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one BGR image, on the CPU: boxes [D,4] in its pixels, scores [D], classes [D], masks [D,R,R] in 0..1."""
    cfg = model.cfg
    framed, (h, w) = letterbox(image, cfg)
    pixels = torch.from_numpy(framed.astype(np.float32)) - torch.tensor(cfg.pixel_mean)
    x = pixels.permute(2, 0, 1)[None].contiguous()
    x[:, :, h:], x[:, :, :, w:] = 0, 0
    out = model(x.to(device))
    boxes, scores, classes, where = select(model, out)
    attention = model.attention_at(out.towers, where)
    owner = torch.zeros_like(classes)
    masks = blend(out.bases, boxes, owner, attention, cfg.mask_size, cfg.attention_size).sigmoid()
    back = torch.tensor([image.shape[1] / w, image.shape[0] / h])
    return boxes.cpu() * back.repeat(2), scores.cpu(), classes.cpu(), masks.cpu()


def encode(masks: NDArray[np.uint8]) -> list[dict[str, object]]:
    encoded: list[dict[str, object]] = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    return encoded


def truth_of(scenes: Scenes) -> COCO:
    categories = [{"id": k, "name": name} for k, name in enumerate(synthetic.CLASS_NAMES)]
    h, w = scenes.ids.shape[1:]
    images = [{"id": k, "height": h, "width": w} for k in range(len(scenes))]
    annotations: list[dict[str, object]] = []
    for index in range(len(scenes)):
        for k in np.flatnonzero(scenes.classes[index] >= 0):
            mask = np.asarray(scenes.ids[index] == k + 1)
            x0, y0, x1, y1 = (int(v) for v in scenes.boxes[index, k])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(scenes.classes[index, k]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": encode(mask[None].astype(np.uint8))[0],
                }
            )
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    return coco


def average_precision(model: BlendMask, scenes: Scenes, device: str = "cpu") -> dict[str, float]:
    """COCO AP of masks and boxes, in 0..1, with AP50, AP75 and the three size bands."""
    model.eval()
    results: list[dict[str, object]] = []
    for index in range(len(scenes)):
        boxes, scores, classes, masks = detect(model, np.asarray(scenes.images[index]), device)
        if not len(boxes):
            continue
        segments = encode(paste(masks, boxes, scenes.ids.shape[1:]))
        for box, score, class_id, segment in zip(
            boxes.tolist(), scores.tolist(), classes.tolist(), segments, strict=True
        ):
            x0, y0, x1, y1 = box
            row = {"image_id": index, "category_id": class_id, "score": score, "segmentation": segment}
            results.append(row | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = truth_of(scenes)
        found = {}
        for kind, name in (("segm", "mask"), ("bbox", "box")):
            stats = [0.0] * 6
            if results:
                loaded = truth.loadRes([dict(row) for row in results])
                run = COCOeval(truth, loaded, kind)
                run.evaluate()
                run.accumulate()
                run.summarize()
                stats = [float(v) for v in run.stats[:6]]
            for suffix, value in zip(("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"), stats, strict=True):
                found[f"{name}_{suffix}"] = round(value, 4)
    return found
