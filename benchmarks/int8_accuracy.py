"""What INT8 costs: AP on scenes and agreement with the float model, ours beside ONNX Runtime's and ModelOpt's.

python samples/conveyor/scenes.py --seed 777 --count 500 --out scenes777
python samples/conveyor/scenes.py --seed 1 --count 128 --out calibration1
python -m benchmarks.int8_accuracy scenes777 --calibration calibration1/images [--modelopt PYTHON] [--json F]

All calibrate on the same pictures, quantise the same convolutions and run in ONNX Runtime on the CPU, which computes
what the Q/DQ nodes say. The bar: ours by mse at least as good as each other tool, and mask AP at most 0.3 points and
1 % below FP32. Other scenes would give other figures, so differences of mask AP come with a 95 % interval (a paired
bootstrap over the scenes); one that has 0 in it is none. ModelOpt needs an onnx of its own and PyTorch: make a virtual
environment with nvidia-modelopt[onnx] and name its Python.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from pycocotools.coco import COCO

import trt_blendmask
from benchmarks.bootstrap import ROUNDS, Matches, differences
from benchmarks.int8_peers import MODELOPT_METHODS, ORT_METHODS, by_modelopt, by_onnxruntime
from benchmarks.int8_speed import machine, speed_ratios
from benchmarks.raw_head import write_drawn
from trt_blendmask.agreement import SCORE, compare_detections
from trt_blendmask.calibrate import METHODS, calibrate
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.quantize.int8_file import Int8Options, quantize_int8_file
from trt_blendmask.quantize.report import describe
from trt_blendmask.runtime.images import SUFFIXES, read_image
from trt_blendmask.structures import Detections
from trt_blendmask.surgery import operate

FLOAT, OURS = "FP32", "ours, mse"
DRAWN = ("R_50_1x", "RT_R_50_4x_bn-head_syncbn_shtw")  # group norm, and batch norm per level
DRAWN_HW = (320, 320)
Make = Callable[[Path], None]


@dataclass(frozen=True)
class Job:
    """The float model, the pictures to calibrate on, and where files may be left."""

    model: Path
    calibration: Path
    folder: Path
    modelopt: Path | None

    @property
    def pictures(self) -> list[Path]:
        return sorted(f for f in self.calibration.iterdir() if f.suffix.lower() in SUFFIXES)

    def rows(self) -> dict[str, Make]:
        """Names, and what writes the files; FP32 apart."""
        rows: dict[str, Make] = {"FP16": self._half}
        rows |= {f"ours, {method}": partial(self._ours, method) for method in METHODS}
        rows |= {
            f"ONNX Runtime, {method}": partial(by_onnxruntime, self.model, self.pictures, method)
            for method in ORT_METHODS
        }
        return rows | {f"ModelOpt, {method}": partial(self._modelopt, method) for method in MODELOPT_METHODS}

    def _half(self, output: Path) -> None:
        quantize_fp16(self.model, output, str(self.calibration))

    def _ours(self, method: str, output: Path) -> None:
        table = self.folder / "table.json"  # the same name, so that all methods read the same histograms
        calibrate(self.model, str(self.calibration), table, n=len(self.pictures), method=method)
        quantize_int8_file(self.model, table, output, Int8Options(images=str(self.calibration)))

    def _modelopt(self, method: str, output: Path) -> None:
        if self.modelopt is None:
            raise RuntimeError("no --modelopt PYTHON was given")
        by_modelopt(self.model, self.pictures, method, output, self.modelopt)


class Scenes:
    """Annotated pictures, and what the float model found in them."""

    def __init__(self, folder: Path, count: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.truth = COCO(str(folder / "annotations.json"))
        self.folder = folder
        self.images = self.truth.loadImgs(sorted(self.truth.getImgIds())[:count])
        self.float: list[Detections] = []
        self.masks: dict[str, Matches] = {}

    def measure(self, name: str, model: Path) -> dict[str, Any]:
        """AP in per cent, agreement with the first model that was measured, and how much of `model` is INT8."""
        found: list[dict[str, Any]] = []
        detections: list[Detections] = []
        with trt_blendmask.load(model) as loaded:
            for image in self.images:
                seen = loaded(read_image(self.folder / image["file_name"]))
                found += [{"image_id": image["id"], **result} for result in seen.to_coco()]
                detections.append(seen.above(SCORE))
        self.float = self.float or detections
        agreement = compare_detections(self.float, detections)
        ids = [image["id"] for image in self.images]
        once = np.ones(len(ids), np.int64)
        self.masks[name] = Matches(self.truth, found, "segm", ids)
        graph = onnx.load(model)
        return {
            "mask_AP": self.masks[name].ap(once),
            "box_AP": Matches(self.truth, found, "bbox", ids).ap(once),
            **vars(agreement),
            "int8_share": describe(graph, ()).trunk_share,
            "quantised_activations": sum(node.op_type == "QuantizeLinear" for node in graph.graph.node),
        }


def accuracy(job: Job, scenes: Scenes, only: str) -> dict[str, dict[str, Any]]:
    """One row per file, printed as it comes."""
    print(f"{'':26}{'mask AP':>9}{'':>8}{'box AP':>8}{'':>8}{'F1':>9}{'mask IoU':>10}{'score shift':>13}")
    rows: dict[str, dict[str, Any]] = {FLOAT: scenes.measure(FLOAT, job.model)}
    show(FLOAT, rows)
    for number, (name, make) in enumerate(job.rows().items()):
        if only not in name:
            continue
        output = job.folder / f"{number}.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                make(output)
            rows[name] = scenes.measure(name, output)
        except Exception as error:  # a tool that fails is a row, too
            rows[name] = {"failed": str(error).splitlines()[0][:300] if str(error) else type(error).__name__}
        show(name, rows)
    compare(rows, scenes.masks)
    return rows


def compare(rows: dict[str, dict[str, Any]], masks: dict[str, Matches]) -> None:
    """Print and note how far the mask AP of every row is from that of FP32, and of ours."""
    for base in (FLOAT, OURS):
        if base not in masks:
            continue
        print(f"mask AP less that of {base}, and 95 % of {ROUNDS} choices of scenes:")
        for name, found in differences(masks, base).items():
            print(f"  {name:26}{found.sentence()}", flush=True)
            rows[name][f"mask_AP_less_{base}"] = {**vars(found), "is_one": found.is_one}


def drawn_agreement(preset: str, job: Job) -> dict[str, Any]:
    """INT8 by mse against FP32 for a published architecture with drawn weights.

    Such a network is sure of nothing, so the better half of what the float one finds is compared.
    """
    raw, model, table, output = (job.folder / f"{preset}.{end}" for end in ("raw.onnx", "onnx", "json", "int8.onnx"))
    write_drawn(preset, DRAWN_HW, raw)
    with contextlib.redirect_stdout(io.StringIO()):
        operate(raw, model)
        calibrate(model, str(job.calibration), table, n=32)
        quantize_int8_file(model, table, output, Int8Options(images=str(job.calibration)))
    found = []
    for path in (model, output):
        with trt_blendmask.load(path) as loaded:
            found.append([loaded(read_image(picture)) for picture in job.pictures[32:40]])
    score = float(np.median(np.concatenate([detections.scores for detections in found[0]])))
    agreement = compare_detections(found[0], found[1], score=score)
    print(
        f"{preset} with drawn weights, {len(found[0])} pictures, score {score:.2f}: {agreement.sentence()}", flush=True
    )
    return {"score": score, "pictures": len(found[0]), **vars(agreement)}


def show(name: str, rows: dict[str, dict[str, Any]]) -> None:
    row, base = rows[name], rows[FLOAT]
    if "failed" in row:
        print(f"{name:26}not measured: {row['failed']}", flush=True)
        return
    mask, box = row["mask_AP"], row["box_AP"]
    print(
        f"{name:26}{mask:9.2f}{mask - base['mask_AP']:+8.2f}{box:8.2f}{box - base['box_AP']:+8.2f}"
        f"{row['f1']:9.4f}{row['mask_iou']:10.4f}{row['score_shift']:13.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder that samples/conveyor/scenes.py wrote")
    parser.add_argument("--calibration", type=Path, required=True, help="folder of pictures, of other scenes")
    parser.add_argument("--model", type=Path, help="deployable ONNX (default: the bundled model)")
    parser.add_argument("--count", type=int, default=500, help="scenes to measure on")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has it, besides FP32")
    parser.add_argument("--modelopt", type=Path, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=15, help="of the speed ratios; 0: none")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # advice of the other tools
    facts, began = machine(), time.time()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    model = args.model or trt_blendmask.bundled_model()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(model, args.calibration, Path(folder), args.modelopt)
        scenes = Scenes(args.scenes, args.count)
        print(f"{len(scenes.images)} scenes, calibrated on {len(job.pictures)} others")
        rows = accuracy(job, scenes, args.only)
        drawn = {} if args.only else {preset: drawn_agreement(preset, job) for preset in DRAWN}
        speed = speed_ratios(job.model, job.calibration, args.rounds, Path(folder)) if args.rounds else {}
    if args.json:
        result = {
            **facts,
            "load_at_end": os.getloadavg()[0],
            "minutes": (time.time() - began) / 60,
            "scenes": len(scenes.images),
            "calibration_pictures": len(job.pictures),
            "accuracy": rows,
            "drawn_weights": drawn,
            "speed": speed,
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
