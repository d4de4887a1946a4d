"""Makes the ONNX files of this folder: small BlendMasks with their selection and blender inside, as users export them.

    python tests/golden/whole_graphs/make_whole_graphs.py

Needs torch 2.13, torchvision 0.28 and onnxscript.

`*_rest_*` begin at the raw heads of AdelaiDet's exporter, for the 128 x 160 `rt_r50_legacy.onnx` of the reference data:
the test puts the two together. `tiny_*` are whole networks on 64 x 96 pixels.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torchvision.ops import batched_nms, nms, roi_align

HERE = Path(__file__).parent


class Rest(torch.nn.Module):
    """Everything behind the raw heads: decode, `select`, blend.

    topk: the 100 best. nms: all above 0.05, suppressed; nmsclass: above 0.05 by class alone. nmsfix: the 256 best,
    suppressed; nmscap: of these the first 30.
    """

    def __init__(self, select: str, classes: int, k: int, m: int, r: int, strides: list[int], hw: tuple[int, int]):
        super().__init__()
        self.select, self.classes, self.k, self.m, self.r, self.strides = select, classes, k, m, r, strides
        grids = []
        for stride in strides:
            ys, xs = torch.meshgrid(torch.arange(hw[0] // stride), torch.arange(hw[1] // stride), indexing="ij")
            grids.append(torch.stack([xs, ys], -1).reshape(-1, 2) * stride + stride // 2)
        self.register_buffer("locations", torch.cat(grids).float())
        counts = [len(grid) for grid in grids]
        self.register_buffer("stride", torch.tensor(strides).repeat_interleave(torch.tensor(counts)).float()[:, None])

    def forward(self, bases: torch.Tensor, *heads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`heads`: logits, bbox_reg, centerness, top_feats, each of all levels."""
        n = len(self.strides)
        logits, distances, centerness, top = (
            torch.cat([x[0].flatten(1).t() for x in heads[i * n : (i + 1) * n]]) for i in range(4)
        )
        distances = distances * self.stride
        boxes = torch.cat([self.locations - distances[:, :2], self.locations + distances[:, 2:]], 1)
        quality = (logits.sigmoid() * centerness.sigmoid()).reshape(-1)
        if self.select in ("nms", "nmsclass"):
            tested = quality if self.select == "nms" else logits.sigmoid().reshape(-1)
            pair = torch.nonzero(tested > 0.05).squeeze(1)
            best = quality[pair]
        else:
            best, pair = quality.topk(100 if self.select == "topk" else 256)
        scores, classes, where = best.sqrt(), pair % self.classes, pair // self.classes
        boxes, attention = boxes[where], top[where]
        if self.select in ("nms", "nmsclass", "nmscap"):
            keep = batched_nms(boxes, scores, classes, 0.6)
            keep = keep[:30] if self.select == "nmscap" else keep
        elif self.select == "nmsfix":
            keep = nms(boxes + classes[:, None].float() * (boxes.max() + 1), scores, 0.6)
        if self.select != "topk":
            boxes, scores, classes, attention = boxes[keep], scores[keep], classes[keep], attention[keep]
        return boxes, scores, classes, self.blend(bases, boxes, attention)

    def blend(self, bases: torch.Tensor, boxes: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
        samples = roi_align(bases, rois, (self.r, self.r), 0.25, 1, True)
        grid = attention.view(-1, self.k, self.m, self.m)
        grid = torch.nn.functional.interpolate(grid, (self.r, self.r), mode="bilinear", align_corners=False)
        return (samples * grid.softmax(1)).sum(1).sigmoid()


class Tiny(torch.nn.Module):
    """A whole network: normalisation, two levels of strides 8 and 16, K 2, M 5, R 14, 3 classes."""

    def __init__(self, select: str) -> None:
        super().__init__()
        torch.manual_seed(5)
        conv = torch.nn.Conv2d
        self.rest = Rest(select, 3, 2, 5, 14, [8, 16], (64, 96))
        self.stem, self.p3, self.p4 = conv(3, 6, 3, 4, 1), conv(6, 6, 3, 2, 1), conv(6, 6, 3, 2, 1)
        self.bases = conv(6, 2, 3, 1, 1)
        self.heads = torch.nn.ModuleList([conv(6, c, 3, 1, 1) for c in (3, 4, 1, 50)])
        with torch.no_grad():
            for layer in self.heads:
                layer.weight *= 12
            self.bases.weight *= 10
            self.heads[1].bias += 2
        self.register_buffer("mean", torch.tensor([103.53, 116.28, 123.675]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([57.375, 57.12, 58.395]).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.stem((image - self.mean) / self.std).relu()
        levels = [self.p3(x).relu()]
        levels.append(self.p4(levels[0]).relu())
        heads = [head(level) for head in self.heads for level in levels]
        heads[2:4] = [x.relu() for x in heads[2:4]]
        return self.rest(self.bases(x), *heads)


def write(name: str, module: torch.nn.Module, feeds: dict[str, torch.Tensor], opset: int, dynamo: bool) -> None:
    path = HERE / f"{name}_{'dynamo' if dynamo else 'legacy'}{opset}.onnx"
    outputs = ["boxes", "scores", "classes", "masks"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), tuple(feeds.values()), str(path), input_names=list(feeds), output_names=outputs,
            opset_version=opset, dynamo=dynamo, **({"external_data": False} if dynamo else {}),
        )  # fmt: skip
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in model.graph.value_info:
        del value.metadata_props[:]
    onnx.save(model, path)
    print(f"{path.name}: {path.stat().st_size} bytes, {len(model.graph.node)} nodes")


def main() -> None:
    sizes = [(16, 20), (8, 10), (4, 5)]
    feeds = {"bases": torch.randn(1, 4, 32, 40)}
    for part, channels in (("logits", 8), ("bbox_reg", 4), ("centerness", 1), ("top_feats", 196)):
        for i, (h, w) in enumerate(sizes):
            feeds[f"P{i + 3}{part}"] = torch.rand(1, channels, h, w)
    for select, opset, dynamo in (("nms", 20, False), ("nmsfix", 20, True), ("nmsfix", 20, False), ("topk", 20, False)):
        write(f"{select}_rest", Rest(select, 8, 4, 7, 56, [8, 16, 32], (128, 160)), feeds, opset, dynamo)
    image = {"image": 255 * torch.rand(1, 3, 64, 96)}
    for select, opset, dynamo in (
        ("topk", 18, True), ("topk", 11, False), ("nms", 11, False), ("nms", 16, False), ("nmsclass", 16, False),
        ("nmsfix", 18, True), ("nmscap", 16, False),
    ):  # fmt: skip
        write(f"tiny_{select}", Tiny(select), image, opset, dynamo)


if __name__ == "__main__":
    main()
