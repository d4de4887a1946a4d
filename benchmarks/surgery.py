"""Deployable ONNX against the raw-head file that it is made from, in ONNX Runtime with two threads.

    python -m benchmarks.surgery [--rounds 15] [--preset 550_R_50_1x] [--size 576] [--json F]

The raw-head file is one as AdelaiDet's exporter writes it, of a published configuration at full size with drawn
weights (`raw_head.py`); it ends at the dense heads. The deployable graph does all that and selection, suppression and
masks besides; its sparse top has to pay for them. All run in turns within one process, and the ratio of each turn is
taken, so that a machine that slows down slows both. The bar: deployable / raw-head <= 0.90.

That file lists its weights as graph inputs, and ONNX Runtime prepares no weight that a caller may replace. So that this
is not counted as the surgery's merit, the last column compares with the same file without that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.raw_head import as_adelaidet_writes, write_drawn
from trt_blendmask.surgery import SurgeryOptions, operate

BAR = 0.90
THREADS = 2
RAW, FAIR, DEPLOYABLE = "raw-head, as AdelaiDet writes it", "raw-head, weights not inputs", "deployable"
FORMS = {
    DEPLOYABLE: SurgeryOptions(),
    "deployable, --nms op": SurgeryOptions(nms="op"),
    "deployable, --top dense": SurgeryOptions(top="dense"),
}


class Runner:
    """A session and its picture: noise, smooth enough to have something in it."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = THREADS, 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        image = self._session.get_inputs()[0]
        random = np.random.default_rng(0)
        if image.type == "tensor(uint8)":
            self._feeds = {image.name: random.integers(0, 256, image.shape, np.uint8)}
        else:
            self._feeds = {image.name: random.uniform(-120, 130, image.shape).astype(np.float32)}

    def milliseconds(self) -> float:
        began = time.perf_counter()
        self._session.run(None, self._feeds)
        return 1e3 * (time.perf_counter() - began)

    def found(self) -> int:
        return int(self._session.run(["count"], self._feeds)[0].sum())


def compared(values: list[float], times: dict[str, list[float]]) -> dict[str, Any]:
    """The median, and the ratios to both raw-head files turn by turn: their median, and where it lies with 95 %."""
    result: dict[str, Any] = {"median_ms": statistics.median(values)}
    for key, base in (("ratio", RAW), ("ratio_fair", FAIR)):
        each = sorted(value / other for value, other in zip(values, times[base], strict=True))
        half = 0.98 * len(each) ** 0.5  # by ranks, in normal approximation
        low, high = int(len(each) / 2 - half), int(np.ceil(len(each) / 2 + half))
        result[key] = statistics.median(each), each[max(low, 0)], each[min(high, len(each) - 1)]
    return result


def make_models(preset: str, input_hw: tuple[int, int], folder: Path) -> dict[str, Path]:
    """The files by what they are."""
    ours, raw, plain = (folder / f"{name}.onnx" for name in ("export", "raw", "raw_without_inputs"))
    write_drawn(preset, input_hw, ours)
    as_adelaidet_writes(ours, raw)
    as_adelaidet_writes(ours, plain, weights_as_inputs=False)
    paths = {RAW: raw, FAIR: plain}
    for number, (name, options) in enumerate(FORMS.items()):
        paths[name] = folder / f"deployable{number}.onnx"
        operate(raw, paths[name], options)
    return paths


def measure(paths: dict[str, Path], rounds: int) -> tuple[dict[str, list[float]], int]:
    """Milliseconds of each round, and what the deployable graph found."""
    runners = {name: Runner(path) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds + 2):
        order = list(runners) if turn % 2 else list(reversed(runners))
        for name in order:
            took = runners[name].milliseconds()
            if turn >= 2:  # the first turns warm caches
                times[name].append(took)
    return times, runners[DEPLOYABLE].found()


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    cpu = names[0].partition(":")[2].strip() if names else platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "load": os.getloadavg()[0], "onnxruntime": onnxruntime.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--preset", default="550_R_50_1x")
    parser.add_argument("--size", type=int, default=576, help="height and width in pixels")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        times, found = measure(make_models(args.preset, (args.size, args.size), Path(folder)), args.rounds)
    print(f"{args.preset} at {args.size} x {args.size}, {THREADS} threads, {found} detections, {args.rounds} rounds")
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    results = {name: compared(values, times) for name, values in times.items()}
    print(f"  {'':34s}{'median':>9s}  ratio [95 % of the median]   to weights not inputs")
    for name, result in results.items():
        columns = ["{:.3f} [{:.3f}, {:.3f}]".format(*result[key]) for key in ("ratio", "ratio_fair")]
        print(f"  {name:34s}{result['median_ms']:6.0f} ms  {columns[0]:26s}   {columns[1]}")
    print(f"ratio deployable / raw-head: {results[DEPLOYABLE]['ratio'][0]:.3f} (bar: {BAR:.2f})")
    if args.json:
        run = {"preset": args.preset, "size": args.size, "threads": THREADS, "rounds": args.rounds, "found": found}
        args.json.write_text(json.dumps({"machine": facts, **run, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
