"""INT8 against FP32 on ONNX Runtime's CPU with two threads, in turns; `int8_accuracy` prints it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.raw_head import write_drawn
from trt_blendmask.calibrate import calibrate, graph_sha256, read_table
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.int8 import quantize_int8
from trt_blendmask.quantize.onnxruntime_form import to_onnxruntime
from trt_blendmask.surgery import operate

THREADS = 2
DRAWN, INPUT_HW = "550_R_50_1x", (576, 576)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count(),
        "vnni": any("vnni" in flag for flag in flags),
        "load": os.getloadavg()[0],
        "onnxruntime": onnxruntime.__version__,
    }


def speed_ratios(bundled: Path, pictures: Path, rounds: int, folder: Path) -> dict[str, dict[str, float]]:
    """Time of FP32 by that of INT8, for the bundled model and for a published one with drawn weights."""
    raw, drawn = folder / "raw.onnx", folder / "drawn.onnx"
    write_drawn(DRAWN, INPUT_HW, raw)
    operate(raw, drawn)
    return {name: _ratio(name, path, pictures, rounds, folder) for name, path in (("bundled", bundled), (DRAWN, drawn))}


def _ratio(name: str, model: Path, pictures: Path, rounds: int, folder: Path) -> dict[str, float]:
    table, int8 = folder / f"{name}.json", folder / f"{name}.int8.onnx"
    calibrate(model, str(pictures), table, n=32)
    source = read_deployable(model)
    quantised = quantize_int8(source.model, read_table(table, graph_sha256(source.model)))
    to_onnxruntime(quantised)
    onnx.save(quantised, int8)
    sessions = [_session(path) for path in (model, int8)]
    image = sessions[0].get_inputs()[0]
    feed = {image.name: np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)}
    times: list[list[float]] = [[], []]
    for turn in range(rounds + 2):
        for which in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            sessions[which].run(None, feed)
            if turn >= 2:  # the first turns warm caches
                times[which].append(1e3 * (time.perf_counter() - began))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    fp32, ours = (statistics.median(values) for values in times)
    print(f"{name}: FP32 {fp32:.1f} ms, INT8 {ours:.1f} ms, {ratio:.2f} times as fast, {THREADS} threads", flush=True)
    return {"fp32_ms": fp32, "int8_ms": ours, "ratio": ratio}


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
