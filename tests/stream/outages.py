"""How soon a camera's picture is back after an outage, and what many of them leave behind.

    python -m tests.stream.outages [--outages 100] [--reconnects 200] [--closings 10] [--side-by-side 4] [--json F]

Outages: the server closes (FIN), resets (RST), is killed and started again, freezes, says nothing, or sends noise, a
random time long. Reported, in seconds: `detected_s` from the last picture to the event, `back_s` from the server's
return to the next picture, `no_picture_s` from the last picture to the next, and `lost_s`, how much of that the outage
itself does not explain: video that was there to be had. Reconnects: resident memory meanwhile, every 20 s. All with the
defaults of `trt_blendmask.runtime.sources.LiveOptions`. Exit code 1 where a promise is broken: every outage survived,
back within 5 s, detected within 3.5 s, closed within 2 s, threads and files as before.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.sources import Source, open_source

from .measures import machine, resources
from .server_process import RemoteServer

T = TypeVar("T")
KINDS = ("fin", "rst", "restart", "freeze", "silent", "garbage")
LIMIT_BACK_S, LIMIT_STALE_S, LIMIT_CLOSE_S = 5.0, 3.5, 2.0
FPS = 12.5


class Camera:
    """A server, a source that plays it, and somebody who takes the frames."""

    def __init__(self) -> None:
        self.server, self.heard = RemoteServer(FPS), list[Event]()
        events = Events()
        events.subscribe(self.heard.append)
        self.source: Source = open_source(self.server.url, events=events)
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        for _ in self.source:
            pass

    def next_event(self, kind: str, after: int, seconds: float) -> Event | None:
        """The first event of a kind after the first `after` events, waited for."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for event in self.heard[after:]:
                if event.kind == kind:
                    return event
            time.sleep(0.01)
        return None

    def close(self) -> None:
        self.source.close()
        self._thread.join()
        self.server.close()


@dataclass(frozen=True)
class Outage:
    """One outage, in seconds; `survived`: whether it was noticed and the picture came back."""

    kind: str
    survived: bool
    detected_s: float = float("inf")
    back_s: float = float("inf")
    no_picture_s: float = float("inf")
    lost_s: float = float("inf")


def outage(camera: Camera, kind: str, rng: random.Random) -> Outage:
    seen = len(camera.heard)
    began_s = time.monotonic()
    if kind == "restart":
        camera.server.kill()
        time.sleep(rng.uniform(0.2, 6))
        camera.server.begin_anew()
    elif kind in ("fin", "rst"):
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
        return Outage(kind, False)
    silent_s = float(lost.details["silent_s"])
    no_picture_s = opened.monotonic_s - lost.monotonic_s + silent_s
    return Outage(kind, True, silent_s, opened.monotonic_s - back_s, no_picture_s, no_picture_s - (back_s - began_s))


def outages(count: int, seed: int) -> list[Outage]:
    """On one camera, in random order."""
    rng, camera = random.Random(seed), Camera()
    found = camera.next_event("source_opened", 0, 30)
    assert found is not None, "the camera was never there"
    results = [outage(camera, KINDS[(seed + i) % len(KINDS)], rng) for i in range(count)]
    camera.close()
    return results


def reconnects(count: int, _seed: int) -> int:
    """How often the picture came back when the server dropped the connection so often."""
    camera = Camera()
    camera.next_event("source_opened", 0, 30)
    for _ in range(count):
        seen = len(camera.heard)
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
    """`resources`, once FFmpeg's own deadlines ended what was left behind."""
    time.sleep(5)
    return resources()


class Sampler:
    """Notes the resident memory until `end`."""

    def __init__(self) -> None:
        self.rss_mb: list[float] = []
        self._ends = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while not self._ends.wait(20):
            self.rss_mb.append(resources()["rss_mb"])

    def end(self) -> None:
        self._ends.set()


def spread(work: Callable[[int, int], T], count: int, side_by_side: int) -> list[T]:
    """`work(share of count, number)` on several cameras at a time."""
    shares = [count // side_by_side + (i < count % side_by_side) for i in range(side_by_side)]
    with ThreadPoolExecutor(side_by_side) as pool:
        return list(pool.map(work, shares, range(side_by_side)))


def distribution(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"median": round(statistics.median(ordered), 3), "p95": round(p95, 3), "max": round(ordered[-1], 3)}


def by_kind(every: list[Outage], name: str) -> dict[str, dict[str, float]]:
    """The distribution of one measure: of all, and of each kind."""
    kinds = {kind: [one for one in every if one.kind == kind] for kind in KINDS}
    groups = {"all": every} | {kind: some for kind, some in kinds.items() if some}
    return {group: distribution([getattr(one, name) for one in some]) for group, some in groups.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outages", type=int, default=100)
    parser.add_argument("--reconnects", type=int, default=200)
    parser.add_argument("--closings", type=int, default=10)
    parser.add_argument("--side-by-side", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    spread(reconnects, args.side_by_side, args.side_by_side)  # what libraries set up once
    before = leftovers()
    every = [one for part in spread(outages, args.outages, args.side_by_side) for one in part]
    after_outages = leftovers()
    sampler = Sampler()
    came_back = sum(spread(reconnects, args.reconnects, args.side_by_side))
    sampler.end()
    longest = closings(args.closings)
    after = leftovers()
    report = {
        "outages": len(every), "survived": sum(one.survived for one in every),
        **{name: by_kind(every, name) for name in ("detected_s", "back_s", "no_picture_s", "lost_s")},
        "reconnects": came_back, "close_s": {what: round(s, 3) for what, s in longest.items()},
        "before": before, "after_outages": after_outages, "after_reconnects": after,
        "rss_mb_while_reconnecting": sampler.rss_mb,
        **machine(),
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    kept = (
        all(one.survived and one.back_s < LIMIT_BACK_S and one.detected_s < LIMIT_STALE_S for one in every)
        and came_back >= args.reconnects
        and max(longest.values()) < LIMIT_CLOSE_S
        and all(end[what] <= before[what] for end in (after_outages, after) for what in ("threads", "files"))
    )
    print("all promises kept" if kept else "A PROMISE IS BROKEN")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
