"""What clients that never read cost a run: `python -m tests.preview.dead_clients`.

The bundled video through the bundled model, served, by turns with nobody and with fifty clients that ask for the
picture, the events or the snapshot and never read an answer. Prints frames per second of both, and their ratio.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
from contextlib import ExitStack

from trt_blendmask.bundled import VIDEO, bundled_model
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.preview import Serving

CLIENTS = 50
PATHS = ("/stream.mjpg", "/events", "/snapshot.jpg", "/stream.mjpg", "/")


def fps(clients: int, frames: int) -> float:
    """Frames per second of one run that so many clients hang on."""
    with ExitStack() as stack:

        def connect(event: Event) -> None:
            if event.kind != "preview":
                return
            port = int(event.details["url"].rstrip("/").rpartition(":")[2])
            for i in range(clients):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", port))
                client.sendall(f"GET {PATHS[i % len(PATHS)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

        events = Events()
        events.subscribe(connect)
        report = run(bundled_model(), VIDEO, max_frames=frames, events=events, serve=Serving.parse("0"))
        assert not events.counters().get("listener_failed")
    return report.fps


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    ratios = []
    for turn in range(args.turns):
        alone, beside = fps(0, args.frames), fps(CLIENTS, args.frames)
        ratios.append(beside / alone)
        print(f"turn {turn + 1}: {alone:.2f} FPS alone, {beside:.2f} beside {CLIENTS} clients that never read")
    print(f"ratio: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    return 0 if statistics.median(ratios) > 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
