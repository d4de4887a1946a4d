"""Makes exporter_files.tar.xz: one small BlendMask as PyTorch's exporters write it, and what PyTorch says of it.

    PYTHONPATH=. python tests/golden/make_exporter_files.py        (needs the extra `train`, onnxscript for dynamo)

Two networks, `apart` (towers apart, group norm, one class, levels 3 to 5) and `shared` (a shared tower with a batch
norm per level, four classes, K 2, levels 3 to 7), each with `.pth`, `.yaml`, `_expected.npz` (`picture` uint8 BGR and
the heads by their names) and ONNX files `NAME_EXPORTER_OPSET.onnx`. As AdelaiDet's exporter does, every level gets a
copy of the towers, and weights are inputs. `apart_2020_9` is opset 9 as PyTorch 1.4 wrote it: IR 4, batch norm not
folded, no names of nodes, numbers for names of tensors. Weights are -1, 0 or 1 times a scale: the archive compresses.
"""

from __future__ import annotations

import copy
import io
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml
from torch import Tensor, nn

from samples.conveyor.config import Config
from samples.conveyor.model import BlendMask

HERE = Path(__file__).parent
HW = (64, 96)
PARTS = ("logits", "bbox_reg", "centerness", "top_feats")
LEGACY = {"apart": (9, 10, 11, 13, 16, 17, 19, 20), "shared": (9, 11, 18)}
DYNAMO = {"apart": (18, 20, 21), "shared": (17,)}


def settings(name: str) -> dict[str, object]:
    """The YAML of AdelaiDet that both our exporter and the sample's model read."""
    apart = name == "apart"
    fcos = {
        "NUM_CLASSES": 1 if apart else 4,
        "NUM_SHARE_CONVS": 0 if apart else 1,
        "NUM_CLS_CONVS": 1 if apart else 0,
        "NUM_BOX_CONVS": 1 if apart else 0,
        "NORM": "GN" if apart else "BN",
        "TOP_LEVELS": 0 if apart else 2,
        "FPN_STRIDES": [8, 16, 32] if apart else [8, 16, 32, 64, 128],
        "IN_FEATURES": ["p3", "p4", "p5"] if apart else ["p3", "p4", "p5", "p6", "p7"],
        "USE_SCALE": not apart,
        "THRESH_WITH_CTR": True,
    }
    resnet = {"DEPTH": 18, "NORM": "FrozenBN", "STEM_OUT_CHANNELS": 4, "RES2_OUT_CHANNELS": 4, "STRIDE_IN_1X1": False,
              "OUT_FEATURES": ["res3", "res4", "res5"]}  # fmt: skip
    fpn = {"OUT_CHANNELS": 32 if apart else 8, "IN_FEATURES": ["res3", "res4", "res5"]}
    basis = {"NUM_BASES": 4 if apart else 2, "CONVS_DIM": 8, "NUM_CONVS": 1, "NORM": "BN", "LOSS_ON": False}
    return {
        "VERSION": 2,
        "MODEL": {
            "META_ARCHITECTURE": "BlendMask",
            "BACKBONE": {"NAME": "build_fcos_resnet_fpn_backbone"},
            "RESNETS": resnet,
            "FPN": fpn,
            "FCOS": fcos,
            "BASIS_MODULE": basis,
            "BLENDMASK": {"ATTN_SIZE": 2 if apart else 3, "BOTTOM_RESOLUTION": 14},
        },
        "INPUT": {"MIN_SIZE_TEST": HW[0], "MAX_SIZE_TEST": HW[1]},
    }


class PerLevel(nn.Module):
    """AdelaiDet's exporter: outputs item by item, a copy of the towers per level."""

    def __init__(self, model: BlendMask, levels: int) -> None:
        super().__init__()
        self.backbone, self.basis_module, self.top_layer = model.backbone, model.basis_module, model.top_layer
        self.heads = nn.ModuleList(copy.deepcopy(model.proposal_generator.fcos_head) for _ in range(levels))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pyramid = self.backbone(images)
        found = [head(feature, level) for level, (head, feature) in enumerate(zip(self.heads, pyramid, strict=True))]
        logits, boxes, centerness, towers = zip(*found, strict=True)
        return self.basis_module(pyramid), *logits, *boxes, *centerness, *map(self.top_layer, towers)


def make(name: str, folder: Path) -> BlendMask:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings(name)))
    config = Config.read(folder / f"{name}.yaml")
    torch.manual_seed(7)
    model = BlendMask(config).eval()
    state = model.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5).mul_(5000 if "stem" in key else 1)  # pixels are in the hundreds
        elif value.dim() == 4:
            value.copy_(torch.randint(-1, 2, value.shape) * (1.2 / value[0].numel() ** 0.5))
        elif key.endswith(".scale"):
            value.uniform_(0.8, 1.2)
        elif value.is_floating_point() and value.dim() == 1:
            value.normal_(0, 0.1).add_(1.0 if key.endswith("weight") else 0.0)
    head = model.proposal_generator.fcos_head
    head.cls_logits.bias.data.fill_(-1.0)
    head.bbox_pred.bias.data.fill_(1.5)
    torch.save(state, folder / f"{name}.pth")
    patches = np.random.default_rng(3).integers(0, 256, (HW[0] // 4, HW[1] // 4, 3), dtype=np.uint8)
    picture = patches.repeat(4, axis=0).repeat(4, axis=1)  # compresses
    planes = (picture.astype(np.float32) - np.array(config.pixel_mean, np.float32)).transpose(2, 0, 1)[None].copy()
    with torch.no_grad():
        heads = {key: value.numpy() for key, value in model.raw_heads(torch.from_numpy(planes)).items()}
    np.savez(folder / f"{name}_expected.npz", picture=picture, **heads)
    return model


def export(model: BlendMask, path: Path, opset: int, dynamo: bool, old: bool = False) -> None:
    levels = len(model.cfg.strides)
    names = ["bases", *(f"P{3 + level}{part}" for part in PARTS for level in range(levels))]
    options: dict[str, object] = {"external_data": False} if dynamo else {"keep_initializers_as_inputs": True}
    if old:
        options["training"] = torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(
        PerLevel(model, levels).eval(),
        (torch.zeros(1, 3, *HW),),
        path,
        input_names=["input_image"],
        output_names=names,
        opset_version=opset,
        dynamo=dynamo,
        **options,
    )


def as_of_2020(path: Path) -> None:
    """No names of nodes, numbers for tensors, IR 4, PyTorch 1.4."""
    model = onnx.load(path)
    model.ir_version, model.producer_version = 4, "1.4"
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    numbers: dict[str, str] = {}
    for node in model.graph.node:
        node.ClearField("name")
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name and name not in kept:
                    names[i] = numbers.setdefault(name, str(700 + len(numbers)))
    del model.graph.value_info[:]
    onnx.save(model, path)


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("apart", "shared"):
            model = make(name, folder)
            for opset in LEGACY[name]:
                export(model, folder / f"{name}_legacy_{opset}.onnx", opset, dynamo=False)
            for opset in DYNAMO[name]:
                export(model, folder / f"{name}_dynamo_{opset}.onnx", opset, dynamo=True)
            if name == "apart":
                export(model, folder / "apart_2020_9.onnx", 9, dynamo=False, old=True)
                as_of_2020(folder / "apart_2020_9.onnx")
        with tarfile.open(HERE / "exporter_files.tar.xz", "w:xz", preset=9) as archive:
            for path in sorted(folder.iterdir()):
                entry = tarfile.TarInfo(path.name)
                data = path.read_bytes()
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main()
