"""The run that `soak.py` watches: a camera, a network that is too slow for it, every output, and a leak if asked for.

For each frame that is done, `ages.txt` in the folder gets a line: `time.monotonic`, and the seconds since the camera
sent the frame, as its picture says.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

from tests.quick_model import quick_model
from tests.stream import frame_code
from trt_blendmask.cli.heap import share_one_arena
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.preview import Serving
from trt_blendmask.runtime.recording import Recording
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.recording.lines import JsonLines
from trt_blendmask.runtime.result import FrameResult


def main() -> None:
    share_one_arena()  # as the command does
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slow-s", type=float, required=True)
    parser.add_argument("--leak-bytes", type=int, required=True)
    parser.add_argument("--preview-port", type=int, required=True)
    parser.add_argument("--broker-port", type=int)
    args = parser.parse_args()
    folder, leaked = args.folder, list[bytes]()
    infer, write = Model.infer, JsonLines.write

    def slow(model: Model, images: Any) -> Any:
        time.sleep(args.slow_s)
        return infer(model, images)

    with (folder / "ages.txt").open("w", buffering=1) as ages:

        def noted(sink: JsonLines, result: FrameResult) -> None:
            write(sink, result)
            if (age_s := frame_code.age_s(result.frame.image)) is not None:
                ages.write(f"{time.monotonic():.3f} {age_s:.3f}\n")
            if args.leak_bytes:
                leaked.append(b"x" * args.leak_bytes)

        events = Events()
        recording = Recording(
            save=folder / "belt.mp4",
            json=folder / "belt.jsonl",
            segment_s=30.0,
            keep_bytes=20_000_000,
            mqtt=Broker("127.0.0.1", args.broker_port, "soak") if args.broker_port else None,
        )
        with mock.patch.object(Model, "infer", slow), mock.patch.object(JsonLines, "write", noted):
            serve = Serving.parse(str(args.preview_port))
            report = run(quick_model((96, 160)), args.url, recording=recording, events=events, serve=serve, score=0.3)
    summary = {"frames": report.frames, "dropped": report.dropped, "failures": report.failures}
    (folder / "summary.json").write_text(json.dumps(summary | {"events": events.counters()}))


if __name__ == "__main__":
    main()
