"""Frames per second of the whole pipeline on the bundled model: decode, letterbox, network, masks, overlay, encode.

    python benchmarks/end_to_end.py [--repeat 3] [--json F]

Prints the pipeline's rate and each stage's time per frame. Stages overlap, and several frames are in the network at a
time, so the times add up to more than a frame's share of the rate.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path

import onnxruntime

import trt_blendmask
from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.bundled import VIDEO
from trt_blendmask.runtime.pipeline import RunReport, run


def measure(folder: Path) -> RunReport:
    """One run of the bundled video, saved as video and JSON lines."""
    save, lines = folder / "masks.mp4", folder / "masks.jsonl"
    return run(trt_blendmask.bundled_model(), str(VIDEO), save=save, json=lines, score=0.5, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = [measure(Path(folder)) for _ in range(args.repeat)]
    stages = {name: statistics.median(r.stage_ms[name] for r in reports) for name in reports[0].stage_ms}
    fps, frames, cores = statistics.median(r.fps for r in reports), reports[0].frames, available_cores()
    print(f"{frames} frames, {cores} cores, ONNX Runtime {onnxruntime.__version__}, median of {args.repeat}:")
    for name, ms in stages.items():
        print(f"  {name:10s} {ms:6.1f} ms")
    print(f"  end to end {fps:6.1f} FPS")
    if args.json:
        machine = {"machine": platform.machine(), "cores": cores, "onnxruntime": onnxruntime.__version__}
        result = {"fps": fps, "stage_ms": stages, "frames": frames, "repeat": args.repeat, **machine}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
