"""How much of its slowest stage the pipeline keeps, and how old live frames are when they are done.

    python -m benchmarks.stream_pipeline [--frames 300] [--json F]

The network only waits, as for a GPU, so that it takes no core from the other stages: what is measured is how the stages
overlap. File: frames per second over those of the slowest stage alone (bar: 0.95, unless the
cores are all busy: then they are the slowest stage). Live, 30 FPS: frames done over what
camera and network allow (bar: 0.90), and the 99th percentile of their age less one interval and one inference (bar: 0).
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from trt_blendmask.backends import Array
from trt_blendmask.backends.onnxruntime import available_cores
from trt_blendmask.bundled import VIDEO
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.recording.video import VideoFile
from trt_blendmask.runtime.sources import LiveOptions, open_source
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.live import LiveSource
from trt_blendmask.structures import U8, Detections, Letterbox, ModelSpec

FPS = 30.0
FILE_MS, LIVE_MS = (2.0, 10.0, 20.0, 40.0), (5.0, 15.0, 25.0, 60.0)


class Camera:
    """A connection as in `trt_blendmask.runtime.sources.live`: a picture `FPS` times a second, made in no time."""

    lossless, ends, damaged = False, False, 0

    def __init__(self, left: threading.Event) -> None:
        self.fps: float | None = FPS
        self.heard_s = self._start_s = time.monotonic()
        self._left, self._count = left, 0

    def read(self) -> Shot | None:
        now_s = time.monotonic()
        self._count = max(self._count + 1, int((now_s - self._start_s) * FPS))
        self._left.wait(max(0.0, self._start_s + self._count / FPS - now_s))
        self.heard_s = time.monotonic()
        return Shot(np.full((144, 256, 3), self._count % 256, np.uint8), self._count / FPS, self.heard_s, False)

    def close(self) -> None:
        pass


class Waiting:
    """A model whose network waits `seconds` and then finds one object."""

    how, path, abreast, batch = "a network that waits", Path("waits"), 1, 1

    def __init__(self, seconds: float) -> None:
        self.spec = ModelSpec("deployable", ("part",), (320, 576), (8, 16, 32), 4, 14, 56, 100, input_dtype="uint8")
        self._seconds = seconds
        self._letterboxer = Letterboxer(self.spec)

    def letterbox(self, image: U8, _slot: int = 0) -> tuple[Array, Letterbox]:
        return self._letterboxer(image)

    def infer(self, _images: Array) -> dict[str, Any]:
        time.sleep(self._seconds)
        return {"count": np.array([1])}

    def collect(self, _outputs: dict[str, Any], box: Letterbox, _slot: int = 0) -> Detections:
        one = np.ones(1, np.float32)
        xyxy, masks = np.array([[50, 50, 150, 120]], np.float32), np.full((1, 56, 56), 0.9, np.float32)
        return Detections(xyxy, one, one.astype(np.int32) * 0, masks, box.frame_wh, self.spec.class_names)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def stages_alone_ms(frames: int, folder: Path) -> dict[str, float]:
    """Milliseconds per frame of decoding and of drawing and encoding, each with the machine to itself."""
    began, images = time.perf_counter(), []
    with closing(open_source(str(VIDEO))) as source:
        for frame in source:
            images.append(frame.image)
            if len(images) == frames:
                break
    decode = time.perf_counter() - began
    height, width = images[0].shape[:2]
    found = Waiting(0).collect({}, Letterbox((width, height), (320, 576)))
    began, video = time.perf_counter(), VideoFile(folder / "alone.mp4", 25, (width, height))
    for number, image in enumerate(images):
        picture = image.copy()
        draw(picture, found)
        video.write(picture, number / 25)
    video.close()
    encode = time.perf_counter() - began
    return {"decode": 1e3 * decode / len(images), "overlay and encode": 1e3 * encode / len(images)}


def of_file(network_ms: float, alone: dict[str, float], frames: int, folder: Path) -> dict[str, float]:
    began = time.process_time()
    with mock.patch("trt_blendmask.runtime.pipeline.load", return_value=Waiting(network_ms / 1e3)):
        report = run("waits", str(VIDEO), folder / "out.mp4", folder / "out.jsonl", max_frames=frames)
    letterbox_ms = report.stage_ms["letterbox"]  # the network's thread does it, too
    cpu_ms = 1e3 * (time.process_time() - began) / report.frames
    slowest, cores = max(*alone.values(), network_ms + letterbox_ms), cpu_ms / available_cores()
    kept, busy = report.fps * slowest / 1e3, report.fps * cores / 1e3
    return {"network_ms": network_ms, "fps": report.fps, "kept": kept, "cores_busy": busy}


def of_camera(network_ms: float, frames: int, folder: Path) -> dict[str, float]:
    camera = LiveSource("camera", Camera, LiveOptions(), Events())
    with (
        mock.patch("trt_blendmask.runtime.pipeline.load", return_value=Waiting(network_ms / 1e3)),
        mock.patch("trt_blendmask.runtime.pipeline.open_source", return_value=camera),
    ):
        report = run("waits", "rtsp://camera", json=folder / "live.jsonl", max_frames=frames)
    interval_ms, work_ms = 1e3 / FPS, sum(report.stage_ms[name] for name in ("letterbox", "network", "encode"))
    possible = 1e3 / max(interval_ms, report.stage_ms["network"] + report.stage_ms["letterbox"])
    age = report.age_ms or (0.0, 0.0)
    over = age[1] - interval_ms - work_ms
    kept = report.fps / possible
    return {"network_ms": network_ms, "kept": kept, "age_p50_ms": age[0], "age_p99_ms": age[1], "over_ms": over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = stages_alone_ms(args.frames, folder)
        print(", ".join(f"{stage} alone {ms:.1f} ms" for stage, ms in alone.items()))
        files = [of_file(ms, alone, args.frames, folder) for ms in FILE_MS]
        for row in files:
            kept = f"{row['kept']:.3f} of the slowest stage, cores {row['cores_busy']:.0%} busy"
            print(f"file, network {row['network_ms']:4.0f} ms: {row['fps']:6.1f} FPS, {kept}")
        cameras = [of_camera(ms, args.frames, folder) for ms in LIVE_MS]
        for row in cameras:
            age = f"age {row['age_p50_ms']:.0f} ms, p99 {row['age_p99_ms']:.0f} ms ({row['over_ms']:+.0f})"
            print(f"live, network {row['network_ms']:4.0f} ms: {row['kept']:.3f} of what is possible, {age}")
    if args.json:
        machine = {"machine": platform.machine(), "cores": available_cores(), "frames": args.frames}
        args.json.write_text(json.dumps({"alone_ms": alone, "file": files, "live": cameras} | machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
