"""How far the layers' sum is from the whole, in ONNX Runtime on this CPU.

    python -m benchmarks.profile_layers [--runs 20] [--json F]

The bundled model in FP32, FP16 and INT8, and BlendMask 550_R_50 with drawn weights at 576 x 576.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.raw_head import write_drawn
from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.bundled import bundled_model
from trt_blendmask.profiler.layers.onnxruntime import onnxruntime_layers
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.quantize.int8_file import Int8Options, quantize_int8_file
from trt_blendmask.runtime.model import load
from trt_blendmask.surgery import operate
from trt_blendmask.synthetic import render_scene

TABLE = Path(__file__).resolve().parent.parent / "calibration" / "conveyor.json"


def models(folder: Path) -> dict[str, Path]:
    """By name."""
    plain = bundled_model()
    paths = {"bundled FP32": plain, "bundled FP16": folder / "fp16.onnx", "bundled INT8": folder / "int8.onnx"}
    quantize_fp16(plain, paths["bundled FP16"])
    quantize_int8_file(plain, TABLE, paths["bundled INT8"], Int8Options(onnxruntime=True))
    write_drawn("550_R_50_3x", (576, 576), folder / "raw.onnx")
    operate(folder / "raw.onnx", folder / "550.onnx")
    return {**paths, "550_R_50 FP32": folder / "550.onnx"}


def measure(path: Path, runs: int) -> dict[str, float | str]:
    """Whole, sum and gap in ms and shares."""
    with load(path, "cpu") as model:
        images = [np.array(model.letterbox(render_scene(1, index).image)[0]) for index in range(4)]
    profile = onnxruntime_layers(path, images, runs)
    return {
        "runs": profile.runs,
        "whole_ms": round(profile.whole_ms, 2),
        "sum_ms": round(profile.sum_ms, 2),
        "gap": round(profile.gap, 4),
        "profiled_ms": round(profile.profiled_ms or 0.0, 2),
        "note": profile.note,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure(path, args.runs) for name, path in models(Path(folder)).items()}
    machine = {"machine": platform.machine(), "cores": available_cores(), "onnxruntime": onnxruntime.__version__}
    text = json.dumps({**machine, "models": found}, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
