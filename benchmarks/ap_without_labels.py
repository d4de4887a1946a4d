"""How well the drop in mask AP is told without labels: what `quantize --max-drop` goes by, beside AP against labels.

python samples/conveyor/scenes.py --seed 777 --count 500 --out scenes777
python -m benchmarks.ap_without_labels scenes777 --limit 128

INT8 files of the bundled model with its committed table and with all ranges too wide or too narrow, as better and
worse ones are needed. Columns: points of mask AP lost against the labels, against what the float model finds in the
mirrored pictures (the estimate), and against what it finds in the pictures themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path

from pycocotools.coco import COCO

import trt_blendmask
from benchmarks.fp16_accuracy import average_precision
from trt_blendmask.agreement import SCORE
from trt_blendmask.calibrate import graph_sha256, read_table
from trt_blendmask.quantize.average_precision import mask_ap, mirrored, truth_of
from trt_blendmask.quantize.files import read_deployable, write_quantized
from trt_blendmask.quantize.int8 import quantize_int8
from trt_blendmask.runtime.images import read_image
from trt_blendmask.structures import U8, Detections

TABLE = Path(__file__).parents[1] / "calibration" / "conveyor.json"
WIDER = (1.0, 1.5, 2.0, 3.0, 0.7, 0.5)


def detect(model: Path, pictures: list[U8]) -> list[Detections]:
    with trt_blendmask.load(model) as loaded:
        return [loaded(picture) for picture in pictures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder that samples/conveyor/scenes.py wrote")
    parser.add_argument("--limit", type=int, help="scenes at most")
    args = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(str(args.scenes / "annotations.json"))
    images = labels.loadImgs(labels.getImgIds()[: args.limit])
    labels.imgs = {image["id"]: image for image in images}
    pictures = [read_image(args.scenes / image["file_name"]) for image in images]
    source = read_deployable(trt_blendmask.bundled_model())
    table = read_table(TABLE, graph_sha256(source.model))
    float_found = detect(source.path, pictures)
    truths = {
        "mirrored": [truth_of(one) for one in detect(source.path, [mirrored(picture) for picture in pictures])],
        "itself": [one.above(SCORE) for one in float_found],
    }
    before = average_precision(labels, images, float_found)["segm"]
    print(f"{len(images)} scenes, mask AP of the float model {before:.2f}")
    for factor in WIDER:
        ranges = {name: factor * value for name, value in table.ranges.items()}
        quantised = quantize_int8(source.model, replace(table, ranges=ranges))
        with tempfile.TemporaryDirectory() as folder:
            write_quantized(quantised, source.spec, Path(folder) / "model.onnx")
            found = detect(Path(folder) / "model.onnx", pictures)
        lost = {name: mask_ap(truth, float_found) - mask_ap(truth, found) for name, truth in truths.items()}
        label = before - average_precision(labels, images, found)["segm"]
        print(f"ranges x {factor:3.1f}: labels {label:6.2f}  " + "  ".join(f"{k} {v:6.2f}" for k, v in lost.items()))


if __name__ == "__main__":
    main()
