"""Our overlay (masks, outlines, labels from R x R masks) against supervision's MaskAnnotator on dense masks.

    python benchmarks/overlay.py [--rounds 30] [--json F]

Both draw the same 30 objects on the same 1920x1080 frame, in turns within one process; medians are compared. Pasting
the dense masks that MaskAnnotator needs is timed apart and not counted against it. The bar: ratio <= 0.25.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.structures import F32, U8, Detections

FRAME_WH = (1920, 1080)
OBJECTS = 30
MASK_SIZE = 56


def make_detections(seed: int = 0) -> Detections:
    """Thirty ellipses, rings and bars of 40 to 420 pixels, some over the border."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(40, 420, (OBJECTS, 2)).astype(np.float32)
    centres = rng.uniform(0, 1, (OBJECTS, 2)).astype(np.float32) * np.array(FRAME_WH, dtype=np.float32)
    return Detections(
        xyxy=np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1),
        scores=np.linspace(0.99, 0.4, OBJECTS, dtype=np.float32),
        classes=rng.integers(0, 8, OBJECTS).astype(np.int32),
        masks=np.stack([_shape(i % 3, rng) for i in range(OBJECTS)]),
        frame_wh=FRAME_WH,
        class_names=("hex nut", "washer", "bolt", "gear", "bracket", "spring", "O-ring", "bearing"),
    )


def _shape(kind: int, rng: np.random.Generator) -> F32:
    y, x = np.mgrid[:MASK_SIZE, :MASK_SIZE].astype(np.float32) * (2 / MASK_SIZE) - 1
    radius = np.hypot(x, y)
    turned = np.abs(x * np.cos(angle := rng.uniform(0, np.pi)) + y * np.sin(angle))
    depth = (0.9 - radius, np.minimum(0.9 - radius, radius - 0.45), np.minimum(0.4 - turned, 0.95 - radius))[kind]
    return np.asarray(1 / (1 + np.exp(-25 * depth)), dtype=np.float32)


def milliseconds(work: Callable[[U8], object], frame: U8) -> float:
    """Time of `work` on a fresh copy of `frame` (the copy is not timed)."""
    image = frame.copy()
    began = time.perf_counter()
    work(image)
    return 1e3 * (time.perf_counter() - began)


def cpu_name() -> str:
    """What Linux calls the processor."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()

    import supervision

    detections = make_detections()
    began = time.perf_counter()
    dense = detections.to_supervision()
    dense_ms = 1e3 * (time.perf_counter() - began)
    annotator = supervision.MaskAnnotator()
    noise = np.random.default_rng(1).integers(0, 255, (FRAME_WH[1], FRAME_WH[0], 3), dtype=np.uint8)
    frame = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), dtype=np.uint8)
    works: dict[str, Callable[[U8], object]] = {
        "ours": lambda image: draw(image, detections),
        "ours, masks only": lambda image: draw(image, detections, labels=False),
        "supervision MaskAnnotator": lambda image: annotator.annotate(image, dense),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(args.rounds + 2):
        for name, work in works.items():
            took = milliseconds(work, frame)
            if turn >= 2:  # the first turns warm caches
                times[name].append(took)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["ours"] / medians["supervision MaskAnnotator"]
    for name, median in medians.items():
        print(f"{name:28s} {median:8.2f} ms")
    print(f"{'(pasting its dense masks)':28s} {dense_ms:8.2f} ms")
    print(f"ratio ours / MaskAnnotator: {ratio:.3f} (bar: 0.25)")
    if args.json:
        machine = {"cpu": cpu_name(), "cores": available_cores()}
        versions = {"opencv": cv2.__version__, "supervision": supervision.__version__, "numpy": np.__version__}
        figures = {"machine": machine, "versions": versions, "median_ms": medians, "ratio": ratio}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
