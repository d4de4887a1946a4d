"""COCO AP (0.50:0.95, pycocotools) of a deployable ONNX on annotated scenes, through the whole runtime.

python samples/conveyor/scenes.py --seed 777 --count 500 --out scenes777
python benchmarks/accuracy.py scenes777 [--model M.onnx] [--json F]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import trt_blendmask
from trt_blendmask.runtime.images import read_image

NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")  # the order of COCOeval.stats


def results(model: trt_blendmask.Model, folder: Path, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """COCO results of every picture that `annotations.json` lists."""
    found: list[dict[str, Any]] = []
    for image in images:
        detections = model(read_image(folder / image["file_name"]))
        found += [{"image_id": image["id"], **result} for result in detections.to_coco()]
    return found


def evaluate(truth: COCO, found: list[dict[str, Any]], kind: str, image_ids: list[int] | None = None) -> dict[str, Any]:
    """AP of `kind` ("segm" or "bbox") on all pictures or some of them, and per class."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        scored = COCOeval(truth, truth.loadRes(found), kind)
        if image_ids is not None:
            scored.params.imgIds = image_ids
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    precision = scored.eval["precision"][:, :, :, 0, -1]  # [IoU, recall, class] over all areas, 100 detections
    names = [category["name"] for category in truth.loadCats(truth.getCatIds())]
    per_class = {name: float(np.mean(p[p > -1])) for name, p in zip(names, np.moveaxis(precision, 2, 0), strict=True)}
    return {**dict(zip(NAMES, map(float, scored.stats), strict=False)), "per_class": per_class}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder that samples/conveyor/scenes.py wrote")
    parser.add_argument("--model", type=Path, help="deployable ONNX (default: the bundled model)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(args.scenes / "annotations.json"))
    with trt_blendmask.load(args.model or trt_blendmask.bundled_model()) as model:
        found = results(model, args.scenes, truth.loadImgs(truth.getImgIds()))
    scores = {kind: evaluate(truth, found, kind) for kind in ("segm", "bbox")}
    print(f"{len(truth.getImgIds())} scenes, {len(truth.getAnnIds())} parts")
    for kind, values in scores.items():
        print(f"  {kind}  " + "  ".join(f"{name} {values[name]:.3f}" for name in NAMES))
        print("        " + "  ".join(f"{name} {ap:.2f}" for name, ap in values["per_class"].items()))
    if args.json:
        args.json.write_text(json.dumps({"scenes": len(truth.getImgIds()), **scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
