"""How soon a camera's picture is back after an outage, and what many of them leave behind.

    python -m tests.stream.outages [--outages 100] [--reconnects 200] [--closings 10] [--side-by-side 4] [--json F]

Outages: the server closes (FIN), resets (RST), freezes, says nothing, or sends noise, a random time long. Reported:
seconds from the loss of the picture to its detection, from the server's return to the next picture. All with the
defaults of `trt_blendmask.runtime.sources.LiveOptions`. Exit code 1 where a promise is broken: every outage survived,
back within 8 s, detected within 3.5 s, closed within 2 s, threads and files as before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av

from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.sources import Source, open_source

from .server_process import RemoteServer

KINDS = ("fin", "rst", "freeze", "silent", "garbage")
LIMIT_BACK_S, LIMIT_STALE_S, LIMIT_CLOSE_S = 8.0, 3.5, 2.0
FPS = 12.5


class Camera:
    """A server, a source that plays it, and somebody who takes the frames."""

    def __init__(self) -> None:
        self.server, self.events = RemoteServer(FPS), Events()
        self.source: Source = open_source(self.server.url, events=self.events)
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        for _ in self.source:
            pass

    def next_event(self, kind: str, after: int, seconds: float) -> Event | None:
        """The first event of a kind after the first `after` events, waited for."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for event in self.events.history()[after:]:
                if event.kind == kind:
                    return event
            time.sleep(0.01)
        return None

    def close(self) -> None:
        self.source.close()
        self._thread.join()
        self.server.close()


def outage(camera: Camera, kind: str, rng: random.Random) -> tuple[float, float]:
    """Seconds until it was noticed, and from its end to the next picture; infinite where that never came."""
    seen = len(camera.events.history())
    if kind in ("fin", "rst"):
        camera.server.stop(kind == "rst")
        time.sleep(rng.uniform(0.2, 6))
        camera.server.start()
    else:
        camera.server.set_mode(kind)
        time.sleep(rng.uniform(3.3, 9))
        camera.server.set_mode("ok")
    back_s = time.monotonic()
    lost = camera.next_event("source_lost", seen, 10)
    opened = camera.next_event("source_opened", seen, 30)
    time.sleep(rng.uniform(0.3, 0.8))
    if lost is None or opened is None:
        return float("inf"), float("inf")
    return float(lost.details["silent_s"]), opened.monotonic_s - back_s


def outages(count: int, seed: int) -> list[tuple[str, float, float]]:
    """On one camera, in random order."""
    rng, camera = random.Random(seed), Camera()
    found = camera.next_event("source_opened", 0, 30)
    assert found is not None, "the camera was never there"
    results = [(kind, *outage(camera, kind, rng)) for kind in [KINDS[(seed + i) % len(KINDS)] for i in range(count)]]
    camera.close()
    return results


def reconnects(count: int, _seed: int) -> int:
    """How often the picture came back when the server dropped the connection so often."""
    camera = Camera()
    camera.next_event("source_opened", 0, 30)
    for _ in range(count):
        seen = len(camera.events.history())
        camera.server.drop()
        if camera.next_event("source_opened", seen, 30) is None:
            break
    came_back = camera.source.state().reconnects
    camera.close()
    return came_back


def closings(count: int) -> dict[str, float]:
    """The longest time that `close` took, by what the source was at."""
    server, longest = RemoteServer(FPS), {}
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)  # accepts at most one connection by itself, and nobody takes it
    held = [socket.create_connection(deaf.getsockname()) for _ in range(1)]
    places = {"freeze": server.url, "silent": server.url, "refused": "rtsp://127.0.0.1:9/x"}
    places |= {"playing": server.url, "connecting": f"rtsp://127.0.0.1:{deaf.getsockname()[1]}/x"}
    for what, url in places.items():
        times = []
        for i in range(count):
            server.set_mode("ok" if what in ("freeze", "playing") else "silent" if what == "silent" else "ok")
            source = open_source(url)
            time.sleep(1.0)
            if what == "freeze":
                server.set_mode("freeze")
            time.sleep(0.5 * i / count)
            began_s = time.monotonic()
            source.close()
            times.append(time.monotonic() - began_s)
        longest[what] = max(times)
    server.close()
    for other in (*held, deaf):
        other.close()
    return longest


def leftovers() -> dict[str, float]:
    """Threads, open files and resident megabytes of this process."""
    status = Path("/proc/self/status").read_text()
    value = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
    return {"threads": float(value["Threads"]), "files": float(sum(1 for _ in Path("/proc/self/fd").iterdir())),
            "rss_mb": int(value["VmRSS"]) / 1024}  # fmt: skip


def spread(work: Callable[[int, int], object], count: int, side_by_side: int) -> list[object]:
    """`work(share of count, number)` on several cameras at a time."""
    shares = [count // side_by_side + (i < count % side_by_side) for i in range(side_by_side)]
    with ThreadPoolExecutor(side_by_side) as pool:
        return list(pool.map(work, shares, range(side_by_side)))


def distribution(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"median": round(statistics.median(ordered), 3), "p95": round(p95, 3), "max": round(ordered[-1], 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outages", type=int, default=100)
    parser.add_argument("--reconnects", type=int, default=200)
    parser.add_argument("--closings", type=int, default=10)
    parser.add_argument("--side-by-side", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    spread(reconnects, args.side_by_side, args.side_by_side)  # what libraries set up once
    time.sleep(5)
    before = leftovers()
    every = [result for part in spread(outages, args.outages, args.side_by_side) for result in part]  # type: ignore
    came_back = sum(spread(reconnects, args.reconnects, args.side_by_side))  # type: ignore
    longest = closings(args.closings)
    time.sleep(5)  # FFmpeg's own deadlines end what was left behind
    after = leftovers()
    kinds = sorted({kind for kind, _, _ in every})
    report = {
        "outages": len(every), "survived": sum(back < float("inf") for _, _, back in every),
        "back_s": distribution([back for _, _, back in every]),
        "back_s_by_kind": {kind: distribution([back for k, _, back in every if k == kind]) for kind in kinds},
        "detected_s": {kind: distribution([late for k, late, _ in every if k == kind]) for kind in kinds},
        "reconnects": came_back, "close_s": {what: round(s, 3) for what, s in longest.items()},
        "before": before, "after": after,
        "machine": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        "av": av.__version__, "ffmpeg": ".".join(map(str, av.library_versions["libavformat"])),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    kept = (
        report["survived"] == len(every)
        and came_back >= args.reconnects
        and max(back for _, _, back in every) < LIMIT_BACK_S
        and max(detected for _, detected, _ in every) < LIMIT_STALE_S
        and max(longest.values()) < LIMIT_CLOSE_S
        and after["threads"] <= before["threads"]
        and after["files"] <= before["files"]
    )
    print("all promises kept" if kept else "A PROMISE IS BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
