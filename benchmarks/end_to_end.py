"""Frames per second of the whole pipeline on the bundled model: decode, letterbox, network, masks, overlay, encode.

    python benchmarks/end_to_end.py [--repeat 3] [--json F]

Prints the stages' means and the pipeline's rate as a share of its slowest stage's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import onnxruntime

import trt_blendmask
from trt_blendmask.bundled import VIDEO
from trt_blendmask.runtime.pipeline import RunReport, run


def measure(folder: Path) -> RunReport:
    """One run of the bundled video, saved as video and JSON lines."""
    save, lines = folder / "masks.mp4", folder / "masks.jsonl"
    return run(trt_blendmask.bundled_model(), str(VIDEO), save=save, json=lines, score=0.4, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = [measure(Path(folder)) for _ in range(args.repeat)]
    stages = {name: statistics.median(r.stage_ms[name] for r in reports) for name in reports[0].stage_ms}
    fps = statistics.median(r.fps for r in reports)
    slowest = max(stages, key=lambda name: stages[name])
    cores = len(os.sched_getaffinity(0))
    print(
        f"{reports[0].frames} frames, {cores} cores, ONNX Runtime {onnxruntime.__version__}, median of {args.repeat}:"
    )
    for name, ms in stages.items():
        print(f"  {name:10s} {ms:6.1f} ms")
    ratio = fps * stages[slowest] / 1000
    print(f"  end to end {fps:6.1f} FPS = {ratio:.2f} x the rate of the slowest stage alone ({slowest})")
    if args.json:
        result = {"fps": fps, "stage_ms": stages, "ratio": ratio, "cores": cores, "machine": platform.processor()}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
