"""The main job on the bundled model and video: checkpoint, export, surgery, ONNX Runtime, overlay."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from trt_blendmask.bundled import CHECKPOINT, CONFIG, VIDEO
from trt_blendmask.console import Console
from trt_blendmask.defaults import SHOWN_SCORE


def demo(output: Path, console: Console) -> Path:
    """Run every stage in order, one line each, into the folder `output`; return the overlay video's path.

    Raises:
        OutputError: the folder cannot be written. KeyboardInterrupt: Ctrl-C; what was recorded so far is kept.
    """
    from trt_blendmask.export import export_onnx
    from trt_blendmask.runtime.pipeline import run
    from trt_blendmask.surgery import operate

    raw, model = output / "raw.onnx", output / "model.onnx"
    video, lines = output / "conveyor_masks.mp4", output / "conveyor_masks.jsonl"
    console.say(f"checkpoint  {CHECKPOINT.name} and {CONFIG.name}, {CHECKPOINT.stat().st_size / 1e6:.1f} MB")

    began = time.perf_counter()
    exported = export_onnx(CHECKPOINT, CONFIG, raw)
    console.say(f"export      {time.perf_counter() - began:4.1f} s  {exported.summary()}")

    began = time.perf_counter()
    operated = operate(raw, model)
    console.say(f"surgery     {time.perf_counter() - began:4.1f} s  {operated.summary()}")
    for line in operated.lines():
        console.detail(f"  {line}")

    began = time.perf_counter()
    ran = run(model, str(VIDEO), save=video, json=lines, score=SHOWN_SCORE, progress=console.shows_progress)
    console.say(f"run         {time.perf_counter() - began:4.1f} s  {ran.summary()}")
    if ran.stopped:
        raise KeyboardInterrupt

    console.say(f"\nLook at      {video}\nDetections   {lines}\n\nNext, with your own camera and checkpoint:")
    command, typed = shlex.quote(_command()), shlex.quote(str(model))
    console.say(f"  {command} predict {typed} YOUR_PICTURE.jpg -o predictions")
    console.say(f"  {command} run {typed} YOUR_VIDEO.mp4 --save masks.mp4 --json masks.jsonl")
    console.say(f"  {command} export YOUR_CHECKPOINT.pth --config YOUR_CONFIG.yaml -o raw.onnx")
    return video


def _command() -> str:
    """What to type here for this very program: of a virtual environment that is not activated, its path."""
    name, called = "trt-blendmask", sys.argv[0]
    if Path(called).name != name or shutil.which(name) == called:
        return name
    paths = [path for path in (called, os.path.relpath(called)) if os.sep in path]
    return min(paths, key=len, default=name)
