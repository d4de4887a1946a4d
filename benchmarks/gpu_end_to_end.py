"""A frame on the GPU, from uint8 pixels in the host's memory to masks there: this engine against PyTorch, batch 1.

    python -m benchmarks.gpu_end_to_end [--flavor auto|tensorrt|rtx] [--cuda core|pycuda] [--frames 200] [--json F]
    python -m benchmarks.gpu_end_to_end --dry-run        # no GPU: ONNX Runtime and PyTorch on the CPU, tiny, no meaning

Published configurations at full size with drawn weights (`raw_head.py`): 550_R_50 at 576x576 and R_50 at 800x1344. The
engine is built from their FP16 ONNX; PyTorch runs the same weights in FP16 (`torch_twin.py`), eager and compiled
(`mode="reduce-overhead"`, with CUDA graphs). Before anything is timed, all of them are compared with ONNX Runtime in
float32. They take turns, and the ratio of each turn is taken, so that a clock that drops slows all.

Bars: 2 x eager, 1.2 x compiled, and the CPU needs at most 0.2 of the GPU's time to hand a frame over.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.raw_head import write_drawn
from benchmarks.torch_twin import TorchTwin, torch_twin
from trt_blendmask.backends.lane import FrameTimes
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.surgery import operate

EAGER_BAR, COMPILED_BAR, LAUNCH_BAR = 2.0, 1.2, 0.2
FULL = (("550_R_50_1x", (576, 576)), ("R_50_1x", (800, 1344)))
TINY = (("550_R_50_1x", (64, 96)),)
AGREE = 0.9  # of the detections, in FP16: those near a threshold may go either way
Outputs = dict[str, Any]
NAMES = ("count", "boxes", "scores", "classes", "masks")


@dataclass(frozen=True)
class Result:
    """Of one network: p50 and p99 in milliseconds by runner, ratios of the medians of turns, and a frame's parts."""

    preset: str
    input_hw: tuple[int, int]
    how: str
    agreement: dict[str, float]
    p50_ms: dict[str, float]
    p99_ms: dict[str, float]
    against_eager: float
    against_compiled: float
    parts_p50_ms: dict[str, float]
    parts_p99_ms: dict[str, float]
    launch_share: float

    def meets_bars(self) -> bool:
        fast = self.against_eager >= EAGER_BAR and self.against_compiled >= COMPILED_BAR
        return fast and self.launch_share <= LAUNCH_BAR


def measure(preset: str, input_hw: tuple[int, int], args: argparse.Namespace, folder: Path) -> Result:
    raw, model, half = folder / "raw.onnx", folder / "model.onnx", folder / "model.fp16.onnx"
    write_drawn(preset, input_hw, raw)
    operate(raw, model)
    quantize_fp16(model, half)
    images = np.random.default_rng(0).integers(0, 256, (1, *input_hw, 3), dtype=np.uint8)
    wanted = OnnxRuntimeSession(model).run(images)
    session = _session(half, args)
    try:
        runners = {
            "engine": lambda: session.run(_filled(session, images)),
            **_torch_runners(preset, images, args.dry_run),
        }
        agreement = {name: _agreement(run(), wanted) for name, run in runners.items()}
        wrong = [f"{name} {share:.2f}" for name, share in agreement.items() if share < AGREE]
        if wrong:
            raise SystemExit(f"{preset}: not the detections of ONNX Runtime, so no speed: {', '.join(wrong)}")
        turns = _take_turns(runners, args.frames)
        parts = [] if args.dry_run else [session.times() for _ in range(args.frames)]
    finally:
        session.close()
    ratio = {name: float(np.median(turns[name] / turns["engine"])) for name in turns}
    spread = {name: np.array([getattr(p, name) for p in parts]) for name in FrameTimes.__annotations__} if parts else {}
    return Result(
        preset,
        input_hw,
        session.how,
        agreement,
        {name: float(np.percentile(ms, 50)) for name, ms in turns.items()},
        {name: float(np.percentile(ms, 99)) for name, ms in turns.items()},
        ratio["eager"],
        ratio["compiled"],
        {name: float(np.percentile(ms, 50)) for name, ms in spread.items()},
        {name: float(np.percentile(ms, 99)) for name, ms in spread.items()},
        float(np.median(spread["launch"] / spread["frame"])) if parts else 0.0,
    )


def _session(model: Path, args: argparse.Namespace) -> Any:
    if args.dry_run:
        return OnnxRuntimeSession(model)
    from trt_blendmask.backends.tensorrt import open_session
    from trt_blendmask.engines.operation import build
    from trt_blendmask.engines.options import BuildOptions

    build(model, options=BuildOptions(flavor=args.flavor))
    return open_session(model.with_suffix(".engine"), args.cuda)


def _filled(session: Any, images: Any) -> Any:
    """The session's input with the picture in it, as the letterbox leaves it there."""
    buffer = session.input_buffer()
    buffer[...] = images
    return buffer


def _torch_runners(preset: str, images: Any, dry_run: bool) -> dict[str, Callable[[], Outputs]]:
    """From and to pinned memory without a wait but the last, as an engine's frame goes."""
    device, dtype = ("cpu", torch.float32) if dry_run else ("cuda", torch.float16)
    twin = torch_twin(preset, device, dtype)
    compiled = twin if dry_run else torch.compile(twin, mode="reduce-overhead", fullgraph=True)
    pinned = torch.empty(images.shape, dtype=torch.uint8, pin_memory=not dry_run)
    kept: list[torch.Tensor] = []

    def runner(network: TorchTwin | Callable[..., Any]) -> Callable[[], Outputs]:
        def run() -> Outputs:
            with torch.inference_mode():
                pinned.copy_(torch.from_numpy(images))
                found = network(pinned.to(device, non_blocking=True))
                if not kept:
                    kept.extend(torch.empty(v.shape, dtype=v.dtype, pin_memory=not dry_run) for v in found)
                for to, value in zip(kept, found, strict=True):
                    to.copy_(value, non_blocking=True)
                if not dry_run:
                    torch.cuda.synchronize()
                return {name: value.numpy() for name, value in zip(NAMES, kept, strict=True)}

        return run

    return {"eager": runner(twin), "compiled": runner(compiled)}


def _agreement(got: Outputs, wanted: Outputs) -> float:
    """F1 of the detections: same class, box IoU from 0.9 on, masks within 0.05 on average."""
    n, m = int(got["count"][0]), int(wanted["count"][0])
    free, hits = set(range(n)), 0
    for j in range(m):
        same = [i for i in free if got["classes"][0, i] == wanted["classes"][0, j]]
        best = max(same, key=lambda i: _iou(got["boxes"][0, i], wanted["boxes"][0, j]), default=None)
        if best is None or _iou(got["boxes"][0, best], wanted["boxes"][0, j]) < 0.9:
            continue
        apart = np.abs(got["masks"][0, best].astype(np.float32) - wanted["masks"][0, j]).mean()
        if apart <= 0.05:
            free.remove(best)
            hits += 1
    return 2 * hits / (n + m) if n + m else 1.0


def _iou(a: Any, b: Any) -> float:
    overlap = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(overlap / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap + 1e-9))


def _take_turns(runners: dict[str, Callable[[], Outputs]], frames: int) -> dict[str, Any]:
    """Milliseconds [frames] of each runner, one frame of each at a time, after a warm-up."""
    for run in runners.values():
        for _ in range(max(1, frames // 10)):
            run()
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(frames):
        for name, run in runners.items():
            began = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flavor", choices=["auto", "tensorrt", "rtx"], default="auto")
    parser.add_argument("--cuda", choices=["core", "pycuda"], default="core")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    results = []
    for preset, input_hw in TINY if args.dry_run else FULL:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(preset, input_hw, args, Path(folder))
        results.append(result)
        print(f"{preset} at {input_hw[0]}x{input_hw[1]}: {result.how}")
        for name, ms in result.p50_ms.items():
            print(f"  {name:9s} p50 {ms:8.2f} ms  p99 {result.p99_ms[name]:8.2f} ms  F1 {result.agreement[name]:.3f}")
        for name, ms in result.parts_p50_ms.items():
            print(f"    {name:9s} p50 {ms:8.3f} ms  p99 {result.parts_p99_ms[name]:8.3f} ms")
        print(
            f"  {result.against_eager:.2f} x eager (bar {EAGER_BAR}), {result.against_compiled:.2f} x compiled "
            f"(bar {COMPILED_BAR}), launch {result.launch_share:.3f} of the GPU's time (bar {LAUNCH_BAR})"
        )
    if args.json:
        gpu = "none" if args.dry_run else torch.cuda.get_device_name()
        machine = {"machine": platform.machine(), "gpu": gpu, "torch": torch.__version__, "frames": args.frames}
        args.json.write_text(json.dumps({**machine, "results": [asdict(r) for r in results]}, indent=1) + "\n")
    if args.dry_run:
        print("a dry run: these times mean nothing")
        return 0
    return 0 if all(result.meets_bars() for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
