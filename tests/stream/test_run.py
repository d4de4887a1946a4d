"""The verb `run` on a live source: survives, tells, and stops when told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from tests.runtime.conftest import stub_model  # noqa: F401
from trt_blendmask import cli
from trt_blendmask.errors import SourceUnavailableError, UsageError
from trt_blendmask.runtime import recording as recording_module
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.recording import Recording
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.sources import LiveOptions

from . import clips
from .conftest import until
from .mjpeg_server import MjpegServer
from .rtsp_server import RtspServer

Maker = Callable[..., Path]


def start(model: Path, url: str, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "trt_blendmask", "run", str(model), url, "--stale", "0.5", *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str]) -> tuple[float, str, str]:
    """Press Ctrl-C: seconds until it ended, and what it said."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    return time.monotonic() - began, out, err


def test_it_survives_an_outage_and_stops_while_frozen(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    lines = tmp_path / "out.jsonl"
    with RtspServer() as server:
        url = server.url.replace("//", "//adm1n:s3cret@")
        process = start(stub_model(), url, "--json", str(lines), "--save", str(tmp_path / "out.mkv"))
        assert until(lambda: server.sent > 20, 30)
        server.drop(reset=True)
        sent = server.sent
        assert until(lambda: server.sent > sent + 25)
        server.mode = "freeze"
        time.sleep(0.8)
        seconds, out, err = stop(process)
    assert process.returncode == 0, err
    assert seconds < 5
    assert "stopped early: wrote" in out
    assert "NO SIGNAL since" in err
    assert err.count("LIVE") == 2
    assert "s3cret" not in out + err
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) > 15
    assert (tmp_path / "out.mkv").stat().st_size > 1000


def test_it_stops_while_there_never_was_a_camera(stub_model: Maker) -> None:  # noqa: F811
    process = start(stub_model(), "rtsp://127.0.0.1:9/none")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("ONNX Runtime")
    first = process.stderr.readline()
    assert [process.stderr.readline() for _ in range(2)]  # by now it waits for frames, and no longer prepares to
    seconds, out, _ = stop(process)
    assert process.returncode == 0
    assert "connection refused" in first
    assert "0 frames" in out
    assert seconds < 5


def test_a_recording_that_breaks_off_ends_with_65_and_what_came_is_kept(
    stub_model: Maker,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    belt, lines, video = tmp_path / "belt.mp4", tmp_path / "a.jsonl", tmp_path / "a.mkv"
    clips.recording(belt, 150, movflags="+faststart")
    words = ["run", str(stub_model()), str(belt), "--json", str(lines), "--save", str(video)]
    assert cli.main(words) == 0
    assert "early" not in "".join(capsys.readouterr())
    belt.write_bytes(belt.read_bytes()[: belt.stat().st_size // 2])
    for more in ([], ["--every", "2"]):
        assert cli.main([*words, *more]) == 65
        out, err = capsys.readouterr()
        count = len(lines.read_text().splitlines())
        assert 20 < count < 120
        assert f"{count} frames in " in out
        assert "sources ended early: 1" in out
        assert "ended early, it breaks off after" in err
        assert err.splitlines()[-1].startswith(f"error[65]: Expected '{belt}' whole, but it breaks off after ")
        with av.open(str(video)) as container:
            assert len(list(container.decode(video=0))) == count
    assert cli.main([*words, "--max-frames", "5"]) == 0


def test_a_live_source_by_the_clock(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    lines = tmp_path / "out.jsonl"
    source = "synthetic:conveyor?live=1&fps=20&size=128x72"
    began = time.monotonic()
    report = run(stub_model(), source, json=lines, max_frames=15)
    assert report.frames == 15
    assert time.monotonic() - began > 14 / 20
    times = [json.loads(line)["time_s"] for line in lines.read_text().splitlines()]
    assert times == sorted(times)
    assert times[-1] >= 14 / 20 - 0.01


def test_a_video_of_a_camera_has_the_rate_of_the_camera(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    video = tmp_path / "out.mkv"
    run(stub_model(), "synthetic:conveyor?live=1&fps=10&size=128x72", video, max_frames=4)
    with av.open(str(video)) as container:
        assert container.streams.video[0].average_rate == 10


def test_an_address_that_holds_a_recording_is_none_of_a_camera(
    stub_model: Maker,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips.recording(tmp_path / "a.mp4", 20)
    waits: list[Callable[[], bool]] = []

    class Messages:
        """A double for MQTT."""

        name, draws, written = "mqtt", False, ()

        def __init__(self, *words: Any) -> None:
            waits.append(words[-1])

        def check(self) -> None: ...

        def write(self, _: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(recording_module, "Mqtt", Messages)
    recording = Recording(mqtt=Broker("host", 1, "belt"))
    with MjpegServer(tmp_path) as server:
        url = server.url.replace("live", "a.mp4")
        run(stub_model(), url, recording=recording)
        assert waits[0]()  # or a line that is slow would cost frames
        with pytest.raises(UsageError, match="Expected a live source for a deadline"):
            run(stub_model(), url, json=tmp_path / "a.jsonl", options=RunOptions(deadline_s=0.05))
    assert not (tmp_path / "a.jsonl").exists()


def test_sources_of_one_name_get_names_of_their_own(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    events, lines, camera = Events(), tmp_path / "a.jsonl", "synthetic:conveyor?live=1&fps=20&size=64x36"
    run(stub_model(), [camera] * 3, json=lines, events=events, max_frames=20)
    names = {camera, f"{camera} (2)", f"{camera} (3)"}
    assert {json.loads(line)["source"] for line in lines.read_text().splitlines()} == names
    opened = [event.details["source"] for event in events.history() if event.kind == "source_opened"]
    assert sorted(opened) == sorted(names)


def test_no_wait_and_max_retries_are_errors_of_the_source(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    for options in (LiveOptions(wait=False), LiveOptions(max_retries=1)):
        events = Events()
        with pytest.raises(SourceUnavailableError, match="connection refused"):
            run(stub_model(), "rtsp://127.0.0.1:9/x", json=tmp_path / "a.jsonl", live=options, events=events)
    assert not (tmp_path / "a.jsonl").exists()


def test_a_camera_is_no_calibration_set() -> None:
    from trt_blendmask.calibrate.pictures import open_pictures

    with pytest.raises(UsageError, match="is a camera"):
        open_pictures("synthetic:conveyor?live=1&size=64x36")
