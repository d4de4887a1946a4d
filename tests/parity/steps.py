"""Single steps against what AdelaiDet's code computed: heads of the bundled model, selection, blending, pasting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.measure import Arrays, Row, compare, largest, relative
from tests.surgery.graphs import SPEC, run_model, run_selection, run_tail
from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.export import export_onnx
from trt_blendmask.paste import paste_full
from trt_blendmask.structures import Detections


def bundled_heads(golden: Path, folder: Path) -> Row:
    """The bundled model's heads against PyTorch's; of the top features every eighth column is in the file."""
    wanted = dict(np.load(golden))
    image = wanted.pop("image")
    report = export_onnx(CHECKPOINT, CONFIG, folder / "raw.onnx", image.shape[:2])
    planes = (image - np.array(report.spec.pixel_mean, np.float32)).transpose(2, 0, 1)[None]
    got = run_model(report.output.read_bytes(), {"input_image": planes})
    got["P3top_feats"] = got["P3top_feats"][..., ::8]
    errors = {name: relative(got[name], values) for name, values in wanted.items()}
    return Row({"heads": max(errors.values())}, details=errors)


def selection(case: Path, nms: str, opset: int = 17) -> Row:
    """FCOS decoding, threshold, top-k and suppression; boxes are told by level and location as well."""
    data, facts = np.load(case), json.loads(case.with_suffix(".json").read_text())
    levels = [
        {part: data[f"{part}_{i}"] for part in ("logits", "reg", "ctr", "top")} for i in range(len(facts["strides"]))
    ]
    spec = replace(
        SPEC,
        score_threshold=facts["INFERENCE_TH_TEST"],
        thresh_with_ctr=facts["THRESH_WITH_CTR"],
        nms_threshold=facts["NMS_TH"],
        pre_nms_topk=facts["PRE_NMS_TOPK_TEST"],
        max_detections=facts["POST_NMS_TOPK_TEST"],
        nms=nms,
    )
    rows = []
    for n, got in enumerate(run_selection(levels, facts["strides"], tuple(facts["padded_hw"]), spec, opset)):
        # Where the two differ (b14), torchvision's coordinate trick suppressed across classes: ours does not.
        prefix = "exact" if f"exact{n}_boxes" in data else "out"
        most = spec.max_detections  # AdelaiDet may return more where scores tie
        wanted = {key: data[f"{prefix}{n}_{key}"][:most] for key in ("boxes", "scores", "classes")}
        row, paired = compare(got, wanted)
        numbers = _location_numbers(facts, data[f"{prefix}{n}_levels"], data[f"{prefix}{n}_locations"])
        top = data[f"{prefix}{n}_top_feat"]
        wrong = sum(got["locations"][i] != numbers[j] or (got["top"][i] != top[j]).any() for i, j in paired)
        rows.append(replace(row, errors={**row.errors, "kept": row.errors["kept"] + wrong}))
    return Row({c: max(row.errors[c] for row in rows) for c in rows[0].errors}, sum(row.objects for row in rows))


def _location_numbers(facts: Any, levels: Any, xy: Any) -> Any:
    """Number of the location at (x, y) of level l, counted over all levels."""
    first = np.cumsum([0, *(h * w for h, w in facts["level_hw"])])
    strides, widths = np.array(facts["strides"]), np.array([w for _, w in facts["level_hw"]])
    cell = (xy - strides[levels][:, None] // 2) / strides[levels][:, None]
    return (first[levels] + cell[:, 1] * widths[levels] + cell[:, 0]).astype(np.int64)


def blending(case: Path, opset: int = 17) -> Row:
    """RoIAlign and blend alone; cells that rounding decides are left out."""
    data, facts = np.load(case), json.loads(case.with_suffix(".json").read_text())
    spec = replace(
        SPEC,
        num_bases=facts["K"],
        attention_size=facts["M"],
        mask_size=facts["R"],
        spatial_scale=facts["spatial_scale"],
        sampling_ratio=facts["sampling_ratio"],
        aligned=facts["aligned"],
        attention_interpolation=facts["top_interp"],
    )
    image, objects = data["batch_index"], len(data["boxes"])
    slots = max(1, *(int((image == n).sum()) for n in range(facts["batch"])))
    boxes = np.zeros((facts["batch"], slots, 4), np.float32)
    attention = np.zeros((facts["batch"], slots, data["attn"].shape[1]), np.float32)
    slot = np.array([int((image[:i] == n).sum()) for i, n in enumerate(image)], np.int64)
    boxes[image, slot], attention[image, slot] = data["boxes"], data["attn"]
    masks = run_tail(data["bases"], boxes, attention.reshape(-1, attention.shape[2]), spec, opset)
    got = masks.reshape(*boxes.shape[:2], spec.mask_size, spec.mask_size)[image, slot]
    return Row({"masks": largest((got - data["masks"][:, 0])[~data["fragile"]])}, objects)


def pasting(case: Path) -> Row:
    """Masks into a picture, where the soft value is not within 1e-3 of one half."""
    data = np.load(case)
    height, width = data["soft"].shape[1:]
    found = {"boxes": data["boxes"], "masks": data["masks"]}
    ours = paste_full(as_detections(found, (width, height)))
    decided = np.abs(data["soft"] - 0.5) >= 1e-3
    return Row({"pixels": float((ours != data["binary"])[decided].sum())}, len(ours))


def as_detections(found: Arrays, frame_wh: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> Detections:
    """Boxes [n, 4] in input pixels and masks [n, R, R] as `Detections` of a frame; `scale`: its pixels per x and y."""
    n = len(found["boxes"])
    boxes = found["boxes"] * np.array([*scale, *scale], np.float32)
    scores, classes = np.linspace(1, 0.5, n, dtype=np.float32), np.zeros(n, np.int32)
    return Detections(boxes.astype(np.float32), scores, classes, found["masks"].astype(np.float32), frame_wh)
