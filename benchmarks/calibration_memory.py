"""Peak memory of `trt-blendmask calibrate` against ONNX Runtime's histogram calibrater, and its time against inference.

    python -m benchmarks.calibration_memory [--images 64] [--size 576x576] [--preset 550_R_50_1x] [--json F]

Both get the same pictures (synthetic scenes) and the same graph up to its heads, each in a process of its own whose
high-water mark (VmHWM) is read at its end. ONNX Runtime's keeps every activation of every picture until the last, so it
is run on 4 and on 8 pictures and the difference is carried on to 512; ours is run on 32 and on `--images`, and carried
on alike. Bars: ours at most 1.5 GB at 512 pictures and a tenth of the other; its time at most 3 times that of running
the model on the pictures.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from benchmarks.raw_head import write_drawn
from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.calibrate import calibrate
from trt_blendmask.calibrate.network import cut
from trt_blendmask.export import export_onnx
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.runtime.images import read_image
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.runtime.model import load
from trt_blendmask.surgery import operate
from trt_blendmask.synthetic import render_scene

WHOLE = 512  # pictures that the bars are about
MOST_BYTES, SHARE, TIMES = 1.5e9, 1 / 10, 3.0
OTHERS = (4, 8)


def ours(model: Path, pictures: Path, n: int) -> None:
    calibrate(model, str(pictures), model.parent / f"table{n}.json", n=n)


def running(model: Path, pictures: Path, n: int) -> None:
    with load(model) as network:
        for file in sorted(pictures.iterdir())[:n]:
            network(read_image(file))


def others(model: Path, pictures: Path, n: int) -> None:
    """ONNX Runtime's percentile calibrater on the convolutions."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    deployable = read_deployable(model)
    trunk = model.with_name("trunk.onnx")
    onnx.save(cut(deployable.model, read_plan(deployable.model).end), trunk)
    boxer, files = Letterboxer(deployable.spec), iter(sorted(pictures.iterdir())[:n])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            file = next(files, None)
            return {"images": boxer(read_image(file))[0].copy()} if file else None

    augmented = str(model.with_name("augmented.onnx"))
    calibrater = create_calibrator(trunk, ["Conv"], augmented, CalibrationMethod.Percentile)
    calibrater.collect_data(Reader())
    calibrater.compute_data()


ROLES = {"ours": ours, "running": running, "others": others}


def play(role: str, model: Path, pictures: Path, n: int) -> None:
    """In a process of its own: print seconds and peak bytes."""
    began = time.perf_counter()
    ROLES[role](model, pictures, n)
    seconds = time.perf_counter() - began
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak}))


def measure(role: str, model: Path, pictures: Path, n: int) -> tuple[float, float]:
    words = ["--role", role, "--model", str(model), "--pictures", str(pictures), "--images", str(n)]
    command = [sys.executable, "-m", "benchmarks.calibration_memory", *words]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(result.stdout.splitlines()[-1])
    print(f"  {role:8} {n:4} pictures  {found['seconds']:7.1f} s  {found['bytes'] / 1e6:8.0f} MB", flush=True)
    return float(found["seconds"]), float(found["bytes"])


def carried_on(few: int, at_few: float, more: int, at_more: float) -> float:
    """The value at `WHOLE` pictures, if each costs what those between `few` and `more` cost."""
    return at_more + max(0.0, at_more - at_few) / (more - few) * (WHOLE - more)


def make(folder: Path, preset: str, size: tuple[int, int], n: int) -> tuple[Path, Path]:
    """A model and a folder of `n` scenes."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for index in range(n):
        scene = np.ascontiguousarray(render_scene(5, index).image)
        side = 2 * max(size)  # 16:9 and 1:1 by turns, so that there are borders and none
        cv2.imwrite(str(pictures / f"{index:04}.jpg"), cv2.resize(scene, (side, side if index % 2 else side * 9 // 16)))
    raw, model = folder / "raw.onnx", folder / "model.onnx"
    if preset == "bundled":
        export_onnx(CHECKPOINT, CONFIG, raw, size)
    else:
        write_drawn(preset, size, raw)
    operate(raw, model)
    return model, pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", default="576x576")
    parser.add_argument("--preset", default="bundled", help="a published configuration, with drawn weights")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        play(args.role, args.model, args.pictures, args.images)
        return
    height, width = (int(side) for side in args.size.split("x"))
    print(f"{args.preset}, {height} x {width}")
    with tempfile.TemporaryDirectory() as name:
        model, pictures = make(Path(name), args.preset, (height, width), args.images)
        theirs = {n: measure("others", model, pictures, n)[1] for n in OTHERS}
        mine = {n: measure("ours", model, pictures, n) for n in (32, args.images)}
        plain = measure("running", model, pictures, args.images)[0]
    our_bytes = carried_on(32, mine[32][1], args.images, mine[args.images][1])
    their_bytes = carried_on(OTHERS[0], theirs[OTHERS[0]], OTHERS[1], theirs[OTHERS[1]])
    times = mine[args.images][0] / plain
    print(f"at {WHOLE} pictures: ours {our_bytes / 1e9:.2f} GB (bar {MOST_BYTES / 1e9}), ONNX Runtime's", end=" ")
    print(f"{their_bytes / 1e9:.1f} GB: 1/{their_bytes / our_bytes:.0f} (bar 1/{1 / SHARE:.0f})")
    print(f"time: {times:.2f} x that of running the model (bar {TIMES})")
    if args.json:
        record = {"preset": args.preset, "size": args.size, "machine": platform.processor() or platform.machine()}
        record |= {"images": args.images, "ours_bytes_512": our_bytes, "onnxruntime_bytes_512": their_bytes}
        args.json.write_text(json.dumps({**record, "seconds_over_running": times}, indent=1) + "\n")
    sys.exit(our_bytes > min(MOST_BYTES, SHARE * their_bytes) or times > TIMES)


if __name__ == "__main__":
    main()
