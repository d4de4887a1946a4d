"""What happens to videos, clocks and disks, through the whole of `run`.

    python -m tests.stream.faults [flips joined rates clock disk] [--json F]

flips: 400 bits turned in 1,500 frames; nearly all come through, those that are damaged are counted. joined: another
size in the middle; the recording begins another part. rates: frames at uneven times; a recording has the same ones.
clock: the wall clock is put forward an hour and back two (needs faketime) while a camera is shown; nothing is lost, and
a freeze after that is noticed in time. disk: a tmpfs of 2 MiB that fills up (needs root); what was recorded before
plays, the other output goes on, exit code 74. Each report holds `wrong`, which is empty; else exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.quick_model import quick_model

from . import clips
from .conftest import until
from .measures import machine
from .rtsp_server import RtspServer

FRAMES, FLIPS = 1500, 400
SIZES = ((640, 480), (640, 240))
UNEVEN_S = [0.0, 0.04, 0.24, 0.273, 1.773, 1.813, 1.853, 2.553, 12.553, 12.586]
TMPFS = "2m"
Report = dict[str, Any]


def words(*more: str | Path) -> list[str]:
    return [sys.executable, "-m", "trt_blendmask", "run", str(quick_model((96, 160))), *map(str, more)]


def run(*more: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(*more), capture_output=True, text=True, check=False, timeout=300)


def rows_of(path: Path) -> list[Report]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def times_of(path: Path) -> list[float]:
    """When each frame of a video is shown, seconds; a frame that does not decode raises."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def flips(folder: Path) -> Report:
    wrong, rows = [], []
    for seed in (1, 2, 3):
        path, lines = folder / "flipped.ts", folder / "flipped.jsonl"
        path.write_bytes(clips.with_flipped_bits(clips.transport_stream(FRAMES), FLIPS, seed))
        done = run(path, "--json", lines)
        decodable = sum(1 for _ in _decodable(path))
        row = {"frames": FRAMES, "flips": FLIPS, "decodable": decodable, "done": len(rows_of(lines))}
        row["corrupt"] = next((int(part.split()[0]) for part in done.stdout.split(", ") if "corrupt" in part), 0)
        rows.append(row)
        if done.returncode or row["done"] < 0.99 * decodable or row["done"] < 0.99 * FRAMES or not row["corrupt"]:
            wrong.append(f"exit {done.returncode}: {row}: {done.stderr}")
    return {"runs": rows, "wrong": wrong}


def _decodable(path: Path) -> Iterator[av.VideoFrame]:
    """What PyAV alone makes of it, as a yardstick."""
    with av.open(str(path)) as container:
        packets = container.demux(video=0)
        while (packet := next(packets, None)) is not None:
            with contextlib.suppress(av.FFmpegError):
                yield from packet.decode()


def joined(folder: Path) -> Report:
    path, video, lines = folder / "joined.ts", folder / "out.mp4", folder / "out.jsonl"
    path.write_bytes(clips.transport_stream(50, SIZES[0]) + clips.transport_stream(50, SIZES[1], first=50))
    done = run(path, "--save", video, "--json", lines)
    parts = {part.name: len(times_of(part)) for part in sorted(folder.glob("out*.mp4"))}
    sizes = [tuple(row["frame_wh"]) for row in rows_of(lines)]
    good = parts == {"out.mp4": 50, "out.part2.mp4": 50} and sizes == [SIZES[0]] * 50 + [SIZES[1]] * 50
    good &= not done.returncode and "the picture is now 640 x 240" in done.stderr
    return {"parts": parts, "wrong": [] if good else [f"{parts}: {done.stderr}"]}


def rates(folder: Path) -> Report:
    errors_s: dict[str, float] = {}
    source = clips.at_times(folder / "uneven.mkv", UNEVEN_S)
    for suffix in (".mp4", ".mkv"):
        done = run(source, "--save", folder / f"out{suffix}", "--json", folder / "out.jsonl")
        made, told = times_of(folder / f"out{suffix}"), [row["time_s"] for row in rows_of(folder / "out.jsonl")]
        if done.returncode or not len(made) == len(told) == len(UNEVEN_S):
            return {"wrong": [f"{len(made)} frames: {done.stderr}"]}
        errors_s[suffix] = round(float(np.abs(np.subtract([made, told], UNEVEN_S)).max()), 6)
    return {"largest_error_s": errors_s, "wrong": [f"{errors_s}"] if max(errors_s.values()) > 0.002 else []}


def clock(folder: Path) -> Report:
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        return {"wrong": ["needs faketime: apt-get install faketime"]}
    now, lines = folder / "now", folder / "clock.jsonl"
    now.write_text("+0")
    faked = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(now), "FAKETIME_NO_CACHE": "1"}
    faked |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    with RtspServer() as server, (folder / "said").open("w+") as said:
        command = words(server.url, "--json", lines, "--json-masks", "none", "--stale", "2", "--save", folder / "c.mkv")
        process = subprocess.Popen(command, env=os.environ | faked, stdout=said, stderr=said, text=True)
        try:
            _grows(lines, 30)
            for shift in ("+1h", "-1h", "+0"):
                _grows(lines, 1.5)
                now.write_text(shift)
            _grows(lines, 1.5)
            lost_before = (folder / "said").read_text().count("NO SIGNAL")
            server.mode = "freeze"
            frozen_s = time.monotonic()
            noticed = until(lambda: (folder / "said").read_text().count("NO SIGNAL") > lost_before, 10)
            noticed_s = time.monotonic() - frozen_s
            server.mode = "ok"
            until(lambda: (folder / "said").read_text().count("LIVE") > 1, 10)
            _grows(lines, 1)
        finally:
            process.send_signal(signal.SIGINT)
            began_s = time.monotonic()
            code = process.wait(30)
    rows = rows_of(lines)
    walls = [b["wall_s"] - a["wall_s"] for a, b in itertools.pairwise(rows)]
    monotonics = [b["monotonic_s"] - a["monotonic_s"] for a, b in itertools.pairwise(rows)]
    report: Report = {
        "steps_seen": sum(abs(step) > 1800 for step in walls),
        "longest_gap_s": round(max(monotonics[: sum(row["monotonic_s"] < frozen_s for row in rows) - 1]), 3),
        "lost_by_a_step": lost_before,
        "freeze_noticed_s": round(noticed_s, 3),
        "stop_s": round(time.monotonic() - began_s, 3),
    }
    times = [row["time_s"] for row in rows]
    good = code == 0 and report["steps_seen"] == 3 and not lost_before and noticed and noticed_s < 3.5
    good &= min(monotonics) > 0 and times == sorted(times) and times[-1] < 60 and len(times_of(folder / "c.mkv")) > 50
    return report | {"frames": len(rows), "wrong": [] if good else [f"exit {code}: {(folder / 'said').read_text()}"]}


def _grows(path: Path, seconds: float) -> None:
    """Wait for lines: the first one, so long at most, or for so long that there are some more."""
    if not path.exists() or not path.stat().st_size:
        assert until(lambda: path.exists() and path.stat().st_size > 0, seconds), "no first line"
    else:
        time.sleep(seconds)


def disk(folder: Path) -> Report:
    if os.getuid() != 0:
        return {"wrong": ["needs root, to mount a tmpfs"]}
    wrong, rows = [], []
    for suffix, what in itertools.product((".mp4", ".mkv"), ("--save", "--json")):
        small, big = folder / "small", folder / "big"
        for place in (small, big):
            place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS}", "none", str(small)], check=True)
        try:
            (small / "other").write_bytes(bytes(1_000_000 if what == "--save" else 1_600_000))  # what else is there
            video = (small if what == "--save" else big) / f"out{suffix}"
            lines = (small if what == "--json" else big) / "out.jsonl"
            source = "synthetic:conveyor?seed=5&size=320x180"
            done = run(source, "--max-frames", "250", "--save", video, "--json", lines, "--score", "0.05")
            row = {"full": what[2:], "video": suffix, "frames": len(times_of(video)), "lines": len(rows_of(lines))}
        finally:
            subprocess.run(["umount", str(small)], check=True)
            shutil.rmtree(big)
        rows.append(row)
        kept, other = (row["frames"], row["lines"]) if what == "--save" else (row["lines"], row["frames"])
        told = "output stopped" in done.stderr and "No space left on device" in done.stderr
        if done.returncode != 74 or not told or other != 250 or not 10 < kept < 250:
            wrong.append(f"exit {done.returncode}: {row}: {done.stderr}")
    return {"runs": rows, "wrong": wrong}


TRIALS = {"flips": flips, "joined": joined, "rates": rates, "clock": clock, "disk": disk}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", default=list(TRIALS), choices=[*TRIALS, list(TRIALS)])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    report: Report = {}
    for name in args.trials:
        with tempfile.TemporaryDirectory() as folder:
            report[name] = TRIALS[name](Path(folder))
    report |= machine()
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if any(report[name]["wrong"] for name in args.trials) else 0


if __name__ == "__main__":
    sys.exit(main())
