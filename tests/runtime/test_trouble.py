"""What goes wrong while several things go on: one source of many, the fallback, listeners, a frozen process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_blendmask.errors import DataError, TrtBlendMaskError, UsageError
from trt_blendmask.runtime import job, pipeline
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.sources import LiveOptions, Source, SourceState
from trt_blendmask.structures import Frame

from .conftest import MODEL_SPEC

Maker = Callable[..., Path]
CAMERA = "synthetic:conveyor?live=1&fps=30&size=128x72"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class FakeCamera:
    """Live pictures of changing sizes, as fast as they are taken; `close` takes `close_s`, as of one that hangs."""

    fps, frame_count, live, corrupt, dropped, cut_short = 25.0, None, True, 0, 0, ""

    def __init__(self, name: str, sizes: list[tuple[int, int]], close_s: float = 0.0, pause_s: float = 0.02) -> None:
        self.name, self._sizes, self._close_s, self._pause_s = name, sizes, close_s, pause_s
        self._closed = threading.Event()
        self.closings = 0

    def state(self) -> SourceState:
        return SourceState("LIVE", 0.0)

    def __iter__(self) -> Iterator[Frame]:
        for index, (width, height) in enumerate(self._sizes):
            if self._closed.wait(self._pause_s):
                return
            image = np.full((height, width, 3), 99, np.uint8)
            yield Frame(image, index, index / 25, captured_s=time.monotonic(), source=self.name)

    def close(self) -> None:
        self.closings += 1
        self._closed.set()
        time.sleep(self._close_s)
        raise OSError("it was gone already")


def given(monkeypatch: pytest.MonkeyPatch, *cameras: FakeCamera) -> list[str]:
    """These are what the names that it returns open."""
    by_name = {camera.name: camera for camera in cameras}
    monkeypatch.setattr(pipeline, "open_source", lambda name, *_: by_name[name])
    return list(by_name)


def ctrl_c_after(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_a_camera_that_was_given_up_is_no_error_of_a_run_that_is_stopped(stub_model: Maker, tmp_path: Path) -> None:
    lines, events = tmp_path / "a.jsonl", Events()
    sources = [CAMERA, "rtsp://127.0.0.1:1/none"]
    ctrl_c_after(2)
    report = run(stub_model(), sources, json=lines, events=events, live=LiveOptions(max_retries=1))
    assert report.stopped
    assert report.frames == len(rows(lines)) > 20
    assert events.counters()["source_ended"] == 1


def test_hung_sources_are_closed_all_at_a_time(
    stub_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = [FakeCamera(f"camera{number}", [(96, 64)] * 10_000, close_s=1.4) for number in range(4)]
    began = time.monotonic()
    ctrl_c_after(0.5)
    report = run(stub_model(), given(monkeypatch, *cameras), json=tmp_path / "a.jsonl")
    assert report.stopped
    assert time.monotonic() - began < 0.5 + 2.5
    assert [camera.closings for camera in cameras] == [1] * 4


def test_a_region_outside_of_a_smaller_picture_is_told_and_left_out(
    stub_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = (192, 128), (96, 64)
    camera = FakeCamera("camera", [large] * 5 + [small] * 5 + [large] * 5 + [small] * 3)
    lines, events = tmp_path / "a.jsonl", Events()
    options = RunOptions(roi=(100, 70, 50, 50))
    run(stub_model(), given(monkeypatch, camera), json=lines, options=options, events=events)
    assert {tuple(row["frame_wh"]) for row in rows(lines)} == {large}
    assert events.counters()["roi_outside"] == 2
    assert "96 x 64" in next(event.text for event in events.history() if event.kind == "roi_outside")
    camera = FakeCamera("camera", [small] * 5)
    with pytest.raises(UsageError, match="within the frame of 96 x 64"):  # a slip, not a change
        run(stub_model(), given(monkeypatch, camera), json=lines, options=options)


def test_every_so_many_frames_of_each_of_several_files(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    sources = [clip(frames=11, name="a.mp4"), clip(frames=7, name="b.mp4"), clip(frames=1, name="c.mp4")]
    report = run(stub_model(), sources, json=tmp_path / "a.jsonl", options=RunOptions(every=4))
    by_source = {str(source): [] for source in sources}
    for row in rows(tmp_path / "a.jsonl"):
        by_source[row["source"]].append(row["frame"])
    assert list(by_source.values()) == [[0, 4, 8], [0, 4], [0]]
    assert report.frames == 6


def test_so_many_frames_of_several_sources_together(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    sources = [clip(name="a.mp4"), CAMERA]
    report = run(stub_model(), sources, json=tmp_path / "a.jsonl", max_frames=15)
    assert report.frames == len(rows(tmp_path / "a.jsonl")) == 15


def test_a_source_that_breaks_while_it_is_closed_is_no_error(
    stub_model: Maker, clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = job.Job._frames

    def breaking(self: job.Job, source: Source) -> Iterator[Frame]:
        for frame in frames(self, source):
            yield frame
            if frame.index == 40:
                while not self._flow.is_over:
                    time.sleep(0.01)
                raise DataError("the file was closed under its reader")

    monkeypatch.setattr(job.Job, "_frames", breaking)
    report = run(stub_model(), clip(frames=60), json=tmp_path / "a.jsonl", max_frames=40)
    assert report.frames == 40


def test_a_fallback_is_no_larger_model_and_knows_the_same_classes(stub_model: Maker) -> None:
    spec, model = MODEL_SPEC, stub_model()
    for hw, names, words in (
        ((64, 160), spec.class_names, "at most the model's 96 x 64 pixels, got 160 x 64"),
        ((64, 96), spec.class_names[::-1], "same classes"),
        ((32, 64), spec.class_names, ""),
    ):
        fallback = stub_model("other.onnx", replace(spec, input_hw=hw, class_names=names))
        with pytest.raises(UsageError, match=words) if words else nullcontext():
            run(model, CAMERA, max_frames=1, options=RunOptions(deadline_s=1.0, fallback=fallback))


def test_a_fallback_that_fails_ends_the_run_with_its_own_error(
    stub_model: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    big, small = stub_model(), stub_model("small.onnx")
    infer = Model.infer

    def slow(self: Model, images: Any) -> Any:
        if self.path == small:
            raise DataError("the smaller one is broken")
        time.sleep(0.06)
        return infer(self, images)

    monkeypatch.setattr(Model, "infer", slow)
    options = RunOptions(deadline_s=0.05, fallback=small)
    with pytest.raises(DataError, match="the smaller one is broken"):
        run(big, CAMERA, json=tmp_path / "a.jsonl", options=options)
    assert len(rows(tmp_path / "a.jsonl")) >= 40


def test_a_fallback_that_hangs_is_named(stub_model: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    big, small, release = stub_model(), stub_model("small.onnx"), threading.Event()
    infer = Model.infer

    def slow(self: Model, images: Any) -> Any:
        if self.path == small:
            release.wait(20)
        time.sleep(0.06)
        return infer(self, images)

    monkeypatch.setattr(Model, "infer", slow)
    options = RunOptions(deadline_s=0.05, fallback=small, hung_s=0.5)
    with pytest.raises(TrtBlendMaskError, match=r"small\.onnx' to be done with a frame"):
        run(big, CAMERA, json=tmp_path / "a.jsonl", options=options)
    release.set()


def test_a_listener_that_fails_stops_nothing(stub_model: Maker, tmp_path: Path) -> None:
    events, told = Events(), []

    def failing(event: Event) -> None:
        told.append(event)
        raise ValueError("this listener is broken")

    events.subscribe(failing)
    report = run(stub_model(), CAMERA, json=tmp_path / "a.jsonl", max_frames=10, events=events)
    assert report.frames == 10
    assert len(told) == 1
    assert events.counters()["listener_failed"] == 1


def test_a_listener_that_wants_out_ends_the_run(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    events = Events()

    def leaving(event: Event) -> None:
        if event.kind == "source_ended":
            raise SystemExit(3)

    events.subscribe(leaving)
    sources = [clip(frames=5), "rtsp://127.0.0.1:1/none"]
    with pytest.raises(SystemExit):
        run(stub_model(), sources, json=tmp_path / "a.jsonl", events=events, live=LiveOptions(max_retries=0))
    assert len(rows(tmp_path / "a.jsonl")) == 5


def test_a_process_that_was_frozen_has_not_hung(stub_model: Maker, tmp_path: Path) -> None:
    """As by `docker pause`, or a debugger."""
    lines = tmp_path / "a.jsonl"
    code = "import time; from trt_blendmask.runtime.model import Model; i = Model.infer\n"
    code += "Model.infer = lambda self, x: (time.sleep(0.3), i(self, x))[1]\n"
    code += "from trt_blendmask.__main__ import entry; entry()"
    words = ["run", str(stub_model()), CAMERA, "--json", str(lines), "--watchdog", "1", "--max-frames", "8"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not lines.exists() or len(lines.read_text().splitlines()) < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(rows(lines)) == 8


def test_a_pause_with_a_deadline_drops_nothing_afterwards(
    stub_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Controls] = []
    init = Controls.__init__

    def noting(self: Controls, *words: Any) -> None:
        init(self, *words)
        made.append(self)

    monkeypatch.setattr(Controls, "__init__", noting)
    camera = FakeCamera("camera", [(96, 64)] * 200)
    lines, events = tmp_path / "a.jsonl", Events()
    for seconds, paused in ((0.6, True), (1.4, False)):
        threading.Timer(seconds, lambda paused=paused: made[0].change({"paused": paused})).start()
    options = RunOptions(deadline_s=0.5)
    report = run(stub_model(), given(monkeypatch, camera), json=lines, options=options, events=events, max_frames=50)
    times = [row["monotonic_s"] for row in rows(lines)]
    assert report.frames == 50
    assert 0.5 < max(np.diff(times)) < 1.3
    assert "deadline" not in events.counters()


def test_classes_that_were_not_named_may_be_chosen_later() -> None:
    controls = Controls()
    controls.class_names = ("nut", "bolt")
    controls.change({"classes": ["nut"]})
    assert controls.change({"classes": ["bolt"]}).classes == ("bolt",)
    assert controls.change({"classes": None}).classes is None
