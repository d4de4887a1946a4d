"""The verb `run` with a preview: what a person changes there changes the run."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.runtime.conftest import clip, stub_model  # noqa: F401
from tests.stream.conftest import until
from trt_blendmask.cli import main
from trt_blendmask.errors import UsageError
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.pipeline import RunReport, run
from trt_blendmask.runtime.preview import Serving
from trt_blendmask.runtime.recording import Recording
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.result import FrameResult

Maker = Callable[..., Path]


class Running:
    """A run in a thread of its own, and its preview."""

    def __init__(self, model: Path, source: str, recording: Recording, max_frames: int) -> None:
        self.events, self._url = Events(), ""
        self.reports: list[RunReport] = []
        self.events.subscribe(self._note)

        def work() -> None:
            served = Serving.parse("0")
            self.reports.append(
                run(model, source, max_frames=max_frames, events=self.events, recording=recording, serve=served)
            )

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert until(lambda: self.ask("/api/state")["frames"] > 3 if self._url else False)

    def _note(self, event: Event) -> None:
        if event.kind == "preview":
            self._url = event.details["url"].rstrip("/")

    def ask(self, path: str, wishes: object = None) -> Any:
        request = urllib.request.Request(self._url + path, headers={"Content-Type": "application/json"})
        request.data = None if wishes is None else json.dumps(wishes).encode()
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def found(self) -> int:
        return len(self.ask("/api/detections")["detections"])


def test_controls_reach_the_frames(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    lines, video = tmp_path / "a.jsonl", tmp_path / "a.mkv"
    running = Running(
        stub_model(), "synthetic:conveyor?live=1&fps=20&size=128x72", Recording(video, lines), max_frames=90
    )
    assert running.found() == 3
    running.ask("/api/controls", {"score": 0.5})
    assert until(lambda: running.found() == 2)
    running.ask("/api/controls", {"score": 0, "classes": ["nut"]})
    assert until(lambda: running.found() == 1)

    running.ask("/api/controls", {"paused": True})
    time.sleep(0.4)
    frames = running.ask("/api/state")["frames"]
    time.sleep(0.4)
    assert running.ask("/api/state")["frames"] == frames
    assert running.ask("/health")["status"] == "PAUSED"
    running.ask("/api/controls", {"paused": False, "recording": False})
    assert until(lambda: running.events.counters().get("recording_stopped") == 1)
    with av.open(str(video)) as finished:
        kept = sum(1 for _ in finished.decode(video=0))
    running.ask("/api/controls", {"recording": True})

    running.thread.join(20)
    assert running.reports[0].frames == 90
    assert [path.name for path in running.reports[0].outputs] == ["a.mkv", "a.part2.mkv", "a.jsonl"]
    with av.open(str(tmp_path / "a.part2.mkv")) as second:
        rest = sum(1 for _ in second.decode(video=0))
    assert kept > 3
    assert kept + rest < 90
    assert len(lines.read_text().splitlines()) == 90
    assert not any(thread.name == "preview" for thread in threading.enumerate())


def test_the_page_stops_recording_where_the_disk_is_full(
    stub_model: Maker,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, full = Recorder.write, threading.Event()

    def write_if_there_is_room(recorder: Recorder, result: FrameResult) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        write(recorder, result)

    monkeypatch.setattr(Recorder, "write", write_if_there_is_room)
    camera = "synthetic:conveyor?live=1&fps=20&size=128x72"
    running = Running(stub_model(), camera, Recording(tmp_path / "a.mkv", tmp_path / "a.jsonl"), max_frames=60)
    assert running.ask("/api/state")["can_record"] is True
    full.set()
    assert until(lambda: running.ask("/api/state")["can_record"] is False)
    assert running.events.counters()["output_stopped"] == 1
    running.thread.join(20)
    assert running.reports[0].frames == 60


def test_a_paused_file_ends_when_told(stub_model: Maker, clip: Maker) -> None:  # noqa: F811
    import signal
    import subprocess
    import sys

    words = [sys.executable, "-m", "trt_blendmask", "run", str(stub_model()), str(clip(frames=400)), "--serve", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = process.stderr.readline().split()[1]
    body = b'{"paused": true}'
    request = urllib.request.Request(url + "api/controls", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
    time.sleep(2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3, (out, err)
    assert process.returncode in (0, 130), err


def test_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "m.onnx", "v.mp4", "--token", "correct-horse"]) == 2
    assert main(["run", "m.onnx", "v.mp4", "--serve", "0.0.0.0:8080"]) == 2
    assert "token" in capsys.readouterr().err
    with pytest.raises(UsageError):
        Serving.parse("nowhere")
    assert list(tmp_path.iterdir()) == []
