"""What FP16 costs: mask and box AP on annotated scenes, and detections that differ, against the float32 model.

The FP16 file is judged with every float16 tensor rounded (benchmarks/half_rounding.py), as ONNX Runtime's CPU provider
would not round activations at all.

python samples/conveyor/scenes.py --seed 777 --count 500 --out scenes777
python -m benchmarks.fp16_accuracy scenes777 [--model M.onnx] [--limit 100] [--json F]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from pycocotools.coco import COCO

import trt_blendmask
from benchmarks.half_rounding import rounded_in_float32
from trt_blendmask.agreement import SCORE, compare_detections
from trt_blendmask.evaluate.scores import KINDS, score
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.runtime.images import read_image
from trt_blendmask.structures import Detections

NEAR = 0.01  # a score that moved across the threshold by less than this is no lost object


def detect(model: Path, folder: Path, images: list[dict[str, Any]]) -> list[Detections]:
    with trt_blendmask.load(model) as loaded:
        return [loaded(read_image(folder / image["file_name"])) for image in images]


def average_precision(truth: COCO, images: list[dict[str, Any]], found: list[Detections]) -> dict[str, float]:
    rows = [
        {"image_id": image["id"], **row}
        for image, detections in zip(images, found, strict=True)
        for row in detections.to_coco()
    ]
    ids = [image["id"] for image in images]
    return {KINDS[kind]: 100 * score(truth, rows, kind, ids).overall["AP"] for kind in ("mask", "box")}


def differing(reference: list[Detections], other: list[Detections]) -> tuple[int, int]:
    """Detections above `SCORE` in one without partner above it in the other: all, and those without one near it."""
    strict = compare_detections(reference, other)
    lost = 0
    for a, b in ((reference, other), (other, reference)):
        low = compare_detections([x.above(SCORE) for x in a], [_raised(y) for y in b])
        lost += low.reference_count - low.matched
    return strict.reference_count + strict.other_count - 2 * strict.matched, lost


def _raised(detections: Detections) -> Detections:
    """With scores `NEAR` higher."""
    d = detections
    return Detections(d.xyxy, d.scores + NEAR, d.classes, d.masks, d.frame_wh, d.class_names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder that samples/conveyor/scenes.py wrote")
    parser.add_argument("--model", type=Path, help="deployable ONNX (default: the bundled model)")
    parser.add_argument("--limit", type=int, help="scenes at most")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(args.scenes / "annotations.json"))
    images = truth.loadImgs(truth.getImgIds()[: args.limit])
    model = args.model or trt_blendmask.bundled_model()
    with tempfile.TemporaryDirectory() as folder:
        half, rounded = Path(folder) / "half.onnx", Path(folder) / "rounded.onnx"
        quantize_fp16(model, half)
        onnx.save(rounded_in_float32(onnx.load(half)), rounded)
        found = [detect(path, args.scenes, images) for path in (model, rounded)]
    if args.limit:
        truth.imgs = {image["id"]: image for image in images}
    scores = [average_precision(truth, images, detections) for detections in found]
    agreement = compare_detections(*found)
    differ, lost = differing(*found)
    per_thousand = 1000 / max(1, agreement.reference_count)
    for kind in ("segm", "bbox"):
        before, after = (score[kind] for score in scores)
        print(f"{len(images)} scenes, {kind} AP {before:.3f} -> {after:.3f}, drop {before - after:+.3f} (at most 0.05)")
    print(f"against float32 at score {SCORE}: {agreement.sentence()}")
    print(f"differing {differ * per_thousand:.2f} in 1,000 (at most 1); score off by {NEAR} or more: {lost} in all")
    if args.json:
        record = {
            "scenes": len(images),
            "float32": scores[0],
            "fp16": scores[1],
            "detections": agreement.reference_count,
            "differing": differ,
            "lost": lost,
            "f1": agreement.f1,
            "mask_iou": agreement.mask_iou,
            "machine": platform.machine(),
            "onnxruntime": onnxruntime.__version__,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
