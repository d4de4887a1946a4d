"""What is left of a recording after kill -9.

    python -m tests.stream.kills [MODEL.onnx] [--kills 50] [--side-by-side 2] [--json F]

Each run of the model (the bundled one where none is named) records a live belt at 25 frames a second as video and JSON
lines, .mp4 and .mkv by turns, and is killed a random time after its first frame. Reported: the share that plays to its
end, and how many seconds of video are missing: `lost_s` against the last frame that was done, as the JSON lines tell,
`behind_s` against the moment of the kill, which also counts what was still in the network. Exit code 1 where a promise
is broken: all play, at most 1 s lost, and every line is whole but for the last.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av

from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.export import export_onnx
from trt_blendmask.surgery import operate

from .measures import machine

LIMIT_LOST_S = 1.0
SOURCE = "synthetic:conveyor?live=1&fps=25&size=512x288"


@dataclass(frozen=True)
class Remains:
    """What a killed run left: whether the video plays, its frames, the seconds that are missing, broken lines."""

    suffix: str
    plays: bool
    frames: int
    done: int
    lost_s: float
    behind_s: float
    broken_lines: int


def record_and_kill(model: Path, folder: Path, suffix: str, after_s: float) -> Remains:
    """Record into `folder` and kill the process `after_s` seconds after its first frame."""
    video, lines = folder / f"belt{suffix}", folder / "belt.jsonl"
    words = [sys.executable, "-m", "trt_blendmask", "run", str(model), SOURCE, "--save", str(video)]
    words += ["--json", str(lines), "--json-masks", "none"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 60
        while not (lines.is_file() and lines.stat().st_size):
            if time.monotonic() > deadline_s or process.poll() is not None:
                raise RuntimeError("the run never wrote its first line")
            time.sleep(0.01)
        time.sleep(after_s)
    finally:
        process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        process.wait()
    return examine(video, lines, killed_s)


def examine(video: Path, lines: Path, killed_s: float) -> Remains:
    """What is left, where the kill was at `time.monotonic` of `killed_s`."""
    whole, cut = lines.read_bytes().rpartition(b"\n")[::2]
    rows = [json.loads(line) for line in whole.splitlines()]  # a broken one raises
    numbers = [row["frame"] for row in rows]
    broken = sum(b <= a for a, b in pairwise(numbers)) + (len(cut) > 100_000)
    times: list[float] = []
    plays = True
    try:
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                times.append(float(frame.time))
                plays &= not frame.is_corrupt
    except (av.FFmpegError, OSError):
        plays = False
    last_s = times[-1] if times else 0.0
    done_s = rows[-1]["time_s"] - rows[0]["time_s"]
    behind_s = killed_s - rows[0]["monotonic_s"] - last_s
    return Remains(video.suffix, plays and bool(times), len(times), len(rows), done_s - last_s, behind_s, broken)


def bundled_model(folder: Path) -> Path:
    """The deployable ONNX of the bundled checkpoint, made in `folder`."""
    export_onnx(CHECKPOINT, CONFIG, folder / "raw.onnx")
    operate(folder / "raw.onnx", folder / "model.onnx")
    return folder / "model.onnx"


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "max": round(max(values), 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--side-by-side", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    plan = [((".mp4", ".mkv")[i % 2], rng.uniform(1.0, 6.0)) for i in range(args.kills)]

    with tempfile.TemporaryDirectory() as shared, ThreadPoolExecutor(args.side_by_side) as pool:
        model = args.model or bundled_model(Path(shared))

        def one(item: tuple[str, float]) -> Remains:
            with tempfile.TemporaryDirectory() as folder:
                return record_and_kill(model, Path(folder), *item)

        every = list(pool.map(one, plan))
    report: dict[str, object] = {"kills": len(every), "broken_lines": sum(r.broken_lines for r in every)}
    for suffix in (".mp4", ".mkv"):
        some = [r for r in every if r.suffix == suffix]
        if some:
            report[suffix] = {
                "kills": len(some),
                "playable": sum(r.plays for r in some),
                "lost_s": spread([r.lost_s for r in some]),
                "behind_s": spread([r.behind_s for r in some]),
            }
    report |= machine()
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    kept = all(r.plays and r.lost_s <= LIMIT_LOST_S and not r.broken_lines for r in every)
    print("all promises kept" if kept else "A PROMISE IS BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
