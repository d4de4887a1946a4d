"""Whole networks against what AdelaiDet's code computed: from checkpoints, from ONNX files, by the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from pycocotools import mask as coco_mask

from tests.parity.measure import Arrays, Row, compare, filled, largest, relative
from tests.parity.steps import as_detections
from tests.surgery.graphs import run_model
from trt_blendmask.cli import main
from trt_blendmask.export import export_onnx
from trt_blendmask.paste import paste, paste_full
from trt_blendmask.surgery import SurgeryOptions, operate

MEAN = np.array([103.53, 116.28, 123.675], np.float32)


def planes(image: Any) -> Any:
    """BGR minus the mean, then padded right and bottom with 0 to multiples of 32, as AdelaiDet does."""
    h, w = image.shape[:2]
    padded = np.zeros((1, 3, -(-h // 32) * 32, -(-w // 32) * 32), np.float32)
    padded[0, :, :h, :w] = (image.astype(np.float32) - MEAN).transpose(2, 0, 1)
    return padded


def from_checkpoint(checkpoint: Path, picture: Path, folder: Path) -> Row:
    """export, then surgery, on the picture as AdelaiDet fed it."""
    wanted = dict(np.load(picture))
    images = planes(wanted["image"])
    raw, model = folder / "raw.onnx", folder / "model.onnx"
    export_onnx(checkpoint, checkpoint.parent / "config_full.yaml", raw, images.shape[2:])
    heads = run_model(raw.read_bytes(), {"input_image": images})
    errors = {name: relative(values, wanted[name]) for name, values in heads.items() if name in wanted}
    errors["attention"] = _attention_error(heads, wanted)
    most = max(100, len(wanted["raw_scores"]))  # more than the slots where scores tie
    operate(raw, model, SurgeryOptions(input_dtype="float32", max_detections=most))
    row = _detections(model, images, picture)
    return replace(row, errors={"heads": max(errors.values()), **row.errors}, details=errors)


def _attention_error(heads: Arrays, wanted: Arrays) -> float:
    """Of the top features that AdelaiDet picked, looked up by level and location (pixels) in the dense outputs."""
    rows = []
    for level, (x, y) in zip(wanted["raw_levels"], wanted["raw_locations"], strict=True):
        dense = heads[f"P{3 + level}top_feats"][0]
        stride = 8 << int(level)
        rows.append(dense[:, int(y - stride // 2) // stride, int(x - stride // 2) // stride])
    return relative(np.reshape(rows, wanted["raw_top_feat"].shape), wanted["raw_top_feat"])


def from_raw_head(raw: Path, picture: Path, top: str, nms: str, folder: Path) -> Row:
    """Surgery on a file of AdelaiDet's own exporter."""
    config = picture.parent / "config_full.yaml"
    operate(raw, folder / "model.onnx", SurgeryOptions(top=top, nms=nms, config=config, input_dtype="float32"))
    return _detections(folder / "model.onnx", planes(np.load(picture)["image"]), picture)


def _detections(model: Path, images: Any, picture: Path) -> Row:
    data = np.load(picture)
    got = filled(run_model(model.read_bytes(), {"images": images}))
    wanted = {name: data[f"raw_{name}"] for name in ("boxes", "scores", "classes")}
    row, paired = compare(got, {**wanted, "masks": data["raw_masks"][:, 0]})
    return replace(row, errors={**row.errors, "pixels": wrong_pixels(got, dict(paired), picture)})


def wrong_pixels(got: Arrays, paired: dict[int, int], picture: Path) -> float:
    """Pasted as AdelaiDet pastes, against its final masks; a mask that only one side has counts as a whole frame."""
    data, facts = np.load(picture), json.loads(picture.with_suffix(".json").read_text())
    height, width = map(int, data["final_hw"])
    network_h, network_w = facts["network_hw"]
    found = as_detections(got, (width, height), (width / network_w, height / network_h))
    ours = {paired.get(i): i for i, patch in enumerate(paste(found, "reference")) if patch is not None}
    theirs = {int(j): n for n, j in enumerate(data["kept_after_postprocess"])}
    full, final, near = paste_full(found, "reference"), unpacked(data, "final_masks"), unpacked(data, "near_half")
    alone = len(ours.keys() ^ theirs.keys()) * width * height
    both = ours.keys() & theirs.keys()
    return float(alone + sum(((full[ours[j]] != final[theirs[j]]) & ~near[theirs[j]]).sum() for j in both))


def unpacked(data: Any, name: str) -> Any:
    """bool [n, H, W] of the bits that `<name>_packed` holds."""
    height, width = map(int, data["final_hw"])
    bits = np.unpackbits(data[f"{name}_packed"], axis=1)[:, : height * width]
    return bits.reshape(-1, height, width).astype(bool)


def from_whole_graph(raw: Path, expected: Path, kind: str, folder: Path) -> Row:
    """Surgery on a file with its own selection and blender, which takes raw BGR planes."""
    data = np.load(expected)
    operate(raw, folder / "model.onnx", SurgeryOptions(nms="op"))
    frame = np.rint(data["image"]).astype(np.uint8).transpose(0, 2, 3, 1)
    got = filled(run_model((folder / "model.onnx").read_bytes(), {"images": np.ascontiguousarray(frame)}))
    wanted = {name: data[f"{kind}_{name}"] for name in ("boxes", "scores", "classes")}
    row, paired = compare(got, wanted)
    masks = data[f"{kind}_masks"]  # of the best only
    errors = [largest(got["masks"][i] - masks[j]) for i, j in paired if j < len(masks)]
    return replace(row, errors={**row.errors, "masks": max(errors, default=0.0)})


def from_tail(raw: Path, case: Path, folder: Path) -> Row:
    """Surgery on the blender alone."""
    data = np.load(case)
    operate(raw, folder / "tail.onnx")
    feeds = {value.name: data[value.name] for value in onnx.load(folder / "tail.onnx").graph.input}
    (masks,) = run_model((folder / "tail.onnx").read_bytes(), feeds).values()
    error = masks.reshape(data["masks"][:, 0].shape) - data["masks"][:, 0]
    return Row({"masks": largest(error[~data["fragile"]])}, len(masks))


def by_command_line(checkpoint: Path, picture: Path, folder: Path) -> Row:
    """export, surgery and predict as a user types them, on a PNG file; judged by the COCO results."""
    data = np.load(picture)
    height, width = data["image_original"].shape[:2]
    cv2.imwrite(str(folder / "picture.png"), data["image_original"])
    at = {name: str(folder / name) for name in ("raw.onnx", "model.onnx", "picture.png", "out")}
    config, size = str(checkpoint.parent / "config_full.yaml"), f"{height}x{width}"
    for command in (
        ["export", str(checkpoint), "--config", config, "--input-size", size, "-o", at["raw.onnx"]],
        ["surgery", at["raw.onnx"], "-o", at["model.onnx"]],
        ["predict", at["model.onnx"], at["picture.png"], "-o", at["out"], "--score", "0", "--paste", "reference"],
    ):
        code = main(["-q", *command])
        assert code == 0, f"{command[0]} ended with {code}"
    results = json.loads((folder / "out" / "results.json").read_text())
    xywh = np.array([r["bbox"] for r in results], np.float32).reshape(-1, 4)
    got = {
        "boxes": np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        "scores": np.array([r["score"] for r in results], np.float32),
        "classes": np.array([r["category_id"] - 1 for r in results]),
    }
    wanted = {name: data[f"final_{name}"] for name in ("boxes", "scores", "classes")}
    row, paired = compare(got, wanted)
    final, near = unpacked(data, "final_masks"), unpacked(data, "near_half")
    ours = [coco_mask.decode(r["segmentation"]).astype(bool) for r in results]
    wrong = sum(((ours[i] != final[j]) & ~near[j]).sum() for i, j in paired)
    return replace(row, errors={**row.errors, "pixels": float(wrong)})
