"""An hour with a camera that breaks down again and again, by hand.

    python -m tests.soak.soak [--minutes 60] [--slow-ms 200] [--json F]

A run plays an RTSP camera (25 frames a second) through a network that takes `--slow-ms`, records segments and JSON
lines, serves the preview to a client that looks and to one that never reads, and publishes to an MQTT broker where
mosquitto is installed. Every 20 s or so the camera resets, closes, freezes, sends noise or changes its size. Beside it
the same run with a planted leak of `LEAK_BYTES` a frame: the control, which must be found out.

Reported, without the first third: slopes of the memory (resident, private; MB an hour) and of the frames' age (seconds
an hour, from the sending to the end of the outputs), each with a 95 % interval; threads and files. Exit code 1 where
memory grows for sure, or, from an hour on, may grow by more than 1 MB an hour; where frames get older; where threads or
files are left; or where the control was not found out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.stream.measures import machine, resources, slope
from tests.stream.mosquitto import Mosquitto
from tests.stream.server_process import RemoteServer

HOUR_S, SAMPLE_S, FPS, LEAK_BYTES = 3600.0, 5.0, 25.0, 2000
MOST_MB_AN_HOUR, MOST_AGE_S_AN_HOUR = 1.0, 1.0
MOST_THREADS = 60
MOST_MORE = 2  # threads, files: what the last outage has left on its way out
SIZES = ((320, 240), (480, 272))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Soak:
    """One run, and all that happens to it until `seconds` are over."""

    def __init__(self, folder: Path, slow_s: float, leak_bytes: int, seconds: float, broker_port: int | None) -> None:
        self.folder, self._seconds = folder, seconds
        folder.mkdir()
        self._server, self._port = RemoteServer(FPS), free_port()
        self._over = threading.Event()
        self.outages: dict[str, int] = {}
        words = [sys.executable, "-m", "tests.soak.child", self._server.url, str(folder), "--slow-s", str(slow_s)]
        words += ["--leak-bytes", str(leak_bytes), "--preview-port", str(self._port)]
        words += ["--broker-port", str(broker_port)] if broker_port else []
        with (folder / "said.txt").open("wb") as said:
            self._child = subprocess.Popen(words, stdout=said, stderr=said)

    def work(self) -> dict[str, Any]:
        ages = self.folder / "ages.txt"
        while not (ages.exists() and ages.stat().st_size):
            if self._child.poll() is not None:
                raise RuntimeError((self.folder / "said.txt").read_text())
            time.sleep(0.1)
        others = [threading.Thread(target=one, daemon=True) for one in (self._trouble, self._look, self._look_away)]
        for one in others:
            one.start()
        samples, began_s = [], time.monotonic()
        while (now_s := time.monotonic()) < began_s + self._seconds and self._child.poll() is None:
            samples.append({"s": now_s, **resources(self._child.pid)})
            time.sleep(SAMPLE_S)
        self._over.set()
        for one in others:
            one.join(30)
        stopping_s = time.monotonic()
        self._child.send_signal(signal.SIGINT)
        code = self._child.wait(30)
        stop_s = time.monotonic() - stopping_s
        self._server.close()
        return self._report(samples, code, stop_s)

    def _report(self, samples: list[dict[str, float]], code: int, stop_s: float) -> dict[str, Any]:
        kept = samples[len(samples) // 3 :]
        times = [one["s"] for one in kept]
        rows = [tuple(map(float, line.split())) for line in (self.folder / "ages.txt").read_text().splitlines()]
        ages = [(s, age) for s, age in rows if times[0] <= s <= times[-1]]
        heaps: dict[int, list[float]] = {}
        for s, age in ages:
            heaps.setdefault(int((s - times[0]) / SAMPLE_S), []).append(age)
        medians = [statistics.median(heap) for heap in heaps.values()]
        ordered = sorted(age for _, age in ages)
        return {
            "minutes": round((samples[-1]["s"] - samples[0]["s"]) / 60, 1),
            "exit_code": code,
            "stop_s": round(stop_s, 2),
            "outages": self.outages,
            "rss_mb_an_hour": slope(times, [one["rss_mb"] for one in kept], HOUR_S),
            "uss_mb_an_hour": slope(times, [one["uss_mb"] for one in kept], HOUR_S),
            "age_s_an_hour": slope([key * SAMPLE_S for key in heaps], medians, HOUR_S),
            "age_s": {"median": statistics.median(ordered), "p99": ordered[int(0.99 * len(ordered))]},
            "rss_mb": [kept[0]["rss_mb"], kept[-1]["rss_mb"]],
            **{what: ends(kept, what) for what in ("threads", "files")},
            **json.loads((self.folder / "summary.json").read_text()),
        }

    def _trouble(self) -> None:
        rng, size = random.Random(1), 0
        while not self._over.wait(rng.uniform(15, 25)):
            kind = rng.choice(["fin", "rst", "freeze", "garbage", "restart", "size"])
            self.outages[kind] = self.outages.get(kind, 0) + 1
            if kind in ("fin", "rst"):
                self._server.stop(kind == "rst")
                self._over.wait(rng.uniform(0.2, 3))
                self._server.start()
            elif kind == "restart":
                self._server.kill()
                self._server.begin_anew()
            elif kind == "size":
                size = 1 - size
                self._server.set_size(SIZES[size])
            else:
                self._server.set_mode(kind)
                self._over.wait(rng.uniform(2, 6))
                self._server.set_mode("ok")

    def _look(self) -> None:
        while not self._over.wait(2):
            with contextlib.suppress(OSError):  # no picture yet
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/snapshot.jpg", timeout=5).read()

    def _look_away(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as client:
                client.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self._over.wait(30)  # and another one comes


def ends(samples: list[dict[str, float]], what: str) -> dict[str, float]:
    """The median of the first and of the last minute, and the most."""
    values, minute = [one[what] for one in samples], int(60 / SAMPLE_S)
    return {
        "first": statistics.median(values[:minute]),
        "last": statistics.median(values[-minute:]),
        "most": max(values),
    }


def verdict(run: dict[str, Any], control: dict[str, Any]) -> list[str]:
    """What is wrong."""
    rss, is_long = run["uss_mb_an_hour"], run["minutes"] >= 59
    wrong = {
        "memory grows": rss["low"] > MOST_MB_AN_HOUR or (is_long and rss["high"] > MOST_MB_AN_HOUR),
        "frames get older": run["age_s_an_hour"]["low"] > MOST_AGE_S_AN_HOUR,
        "there are many threads": run["threads"]["most"] > MOST_THREADS,
        "threads are left": run["threads"]["last"] > run["threads"]["first"] + MOST_MORE,
        "files are left": run["files"]["last"] > run["files"]["first"] + MOST_MORE,
        "it ended with an error": run["exit_code"] != 0 or bool(run["failures"]),
        "the planted leak was not found": control["uss_mb_an_hour"]["low"] <= MOST_MB_AN_HOUR,
    }
    return [what for what, holds in wrong.items() if holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--slow-ms", type=float, default=200.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        has_broker = shutil.which("mosquitto") is not None
        port = stack.enter_context(Mosquitto(folder)).port if has_broker else None
        soaks = [
            Soak(folder / name, args.slow_ms / 1e3, leak, 60 * args.minutes, port)
            for name, leak in (("run", 0), ("control", LEAK_BYTES))
        ]
        run, control = ThreadPoolExecutor(2).map(Soak.work, soaks)
    wrong = verdict(run, control)
    report = {"run": run, "control": control, "mqtt": has_broker, "wrong": wrong, **machine()}
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
