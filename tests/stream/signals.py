"""SIGINT and SIGTERM at random times of a run, on a camera that works, freezes, or never answers.

    python -m tests.stream.signals [--count 100] [--seed 1] [--json F]

Each run must end with 0 and its summary (130 only where nothing was recorded yet), within 2 s, or 5 s where the camera
hangs; what it recorded must be whole. Prints how long it took and exits with 1 where one of that failed.
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
from pathlib import Path

import av

from trt_blendmask.bundled import bundled_model
from trt_blendmask.layout import counted

from .measures import machine
from .rtsp_server import RtspServer

ENDS = (0, 130, -signal.SIGINT)  # the last, which shells call 130, too, where it struck in the midst of an import
LIMITS_S = {"ok": 2.0, "freeze": 5.0, "silent": 5.0, "belt": 2.0}


def one(model: Path, source: str, folder: Path, delay_s: float, number: int) -> tuple[int, float, str]:
    """Exit code, seconds from the signal to the end, and what is wrong ("" nothing)."""
    save, lines = folder / "out.mp4", folder / "out.jsonl"
    words = [sys.executable, "-m", "trt_blendmask", "run", str(model), source, "--save", str(save)]
    process = subprocess.Popen([*words, "--json", str(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(delay_s)
    began = time.monotonic()
    process.send_signal(number)
    out, said = (text.decode() for text in process.communicate(timeout=60))
    seconds = time.monotonic() - began
    if process.returncode not in ENDS:
        return process.returncode, seconds, said
    frames, rows = 0, 0
    try:
        if save.exists():
            with av.open(str(save)) as container:
                frames = len(list(container.decode(video=0)))
        if lines.exists():
            rows = len([json.loads(line) for line in lines.read_text().splitlines()])
    except (av.FFmpegError, ValueError) as error:
        return process.returncode, seconds, str(error)
    for path in (save, lines):
        path.unlink(missing_ok=True)
    return process.returncode, seconds, wrong(process.returncode, out, frames, rows)


def wrong(code: int, out: str, frames: int, rows: int) -> str:
    """What is wrong with a run that ended with `code` after so much was recorded."""
    if code and rows:
        return f"not 0, though {rows} lines were written"
    if not code and f"{counted(rows, 'frame')} in " not in out:
        return f"the summary is not one of {rows} frames: {out[-300:]!r}"
    return "" if frames == rows else f"{frames} frames, {rows} lines"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    random.seed(args.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    taken: dict[str, list[float]] = {mode: [] for mode in LIMITS_S}
    codes: dict[str, int] = {}
    failed = 0
    model = bundled_model()
    with tempfile.TemporaryDirectory() as name, RtspServer() as server:
        for number in range(args.count):
            mode = list(LIMITS_S)[number % len(LIMITS_S)]
            server.mode = "ok" if mode == "belt" else mode
            source = "synthetic:conveyor?live=1&size=320x180" if mode == "belt" else server.url
            delay_s, which = random.uniform(1.0, 6.0), random.choice([signal.SIGINT, signal.SIGTERM])
            code, seconds, complaint = one(Path(model), source, Path(name), delay_s, which)
            taken[mode].append(seconds)
            codes[str(code)] = codes.get(str(code), 0) + 1
            if code not in ENDS or seconds > LIMITS_S[mode] or complaint:
                failed += 1
                print(f"{mode}: {which.name} after {delay_s:.2f} s: exit {code} after {seconds:.2f} s {complaint}")
    report = {
        "signals": args.count,
        "failed": failed,
        "exit_codes": codes,
        "end_s": {mode: {"median": round(statistics.median(all_s), 3), "max": round(max(all_s), 3)}
                  for mode, all_s in taken.items() if all_s},
        **machine(),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
