"""COCO AP (0.50:0.95, pycocotools) of a deployable ONNX on annotated scenes, through the whole runtime.

python samples/conveyor/scenes.py --seed 777 --count 500 --out scenes777
python benchmarks/accuracy.py scenes777 [--model M.onnx] [--json F]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

import trt_blendmask
from trt_blendmask.evaluate.scores import KINDS, NAMES, score
from trt_blendmask.runtime.images import read_image


def results(model: trt_blendmask.Model, folder: Path, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """COCO results of every picture that `annotations.json` lists."""
    found: list[dict[str, Any]] = []
    for image in images:
        detections = model(read_image(folder / image["file_name"]))
        found += [{"image_id": image["id"], **result} for result in detections.to_coco()]
    return found


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
    scores = {KINDS[kind]: score(truth, found, kind, truth.getImgIds()) for kind in ("mask", "box")}
    print(f"{len(truth.getImgIds())} scenes, {len(truth.getAnnIds())} parts")
    for kind, one in scores.items():
        print(f"  {kind}  " + "  ".join(f"{name} {one.overall[name]:.3f}" for name in NAMES[:6]))
        print("        " + "  ".join(f"{name} {values['AP']:.2f}" for name, values in one.per_class.items()))
    if args.json:
        facts = {kind: asdict(one) for kind, one in scores.items()}
        args.json.write_text(json.dumps({"scenes": len(truth.getImgIds()), **facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
