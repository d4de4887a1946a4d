"""Outputs of a whole run: parts, segments, what is deleted, and what happens when one of them fails."""

from __future__ import annotations

import calendar
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from trt_blendmask import cli
from trt_blendmask.errors import DataError, OutputError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.recording import Recording, growing, recorder, segments, video
from trt_blendmask.runtime.recording.lines import JsonLines
from trt_blendmask.runtime.recording.pictures import Pictures
from trt_blendmask.runtime.recording.recorder import Recorder

Maker = Callable[..., Path]


def frames_of(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert frames[0].time == 0
    return [(frame.width, frame.height) for frame in frames]


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def two_sizes(tmp_path: Path) -> Path:
    """MPEG-TS of five frames of 160 x 120, then four of 96 x 64."""
    path = tmp_path / "two.ts"
    parts = []
    for frames, (width, height) in ((5, (160, 120)), (4, (96, 64))):
        part = tmp_path / "part.ts"
        with av.open(str(part), "w", format="mpegts") as container:
            video = container.add_stream("libx264", rate=Fraction(25))
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.options = {"tune": "zerolatency", "preset": "ultrafast"}
            for i in range(frames):
                picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 20 * i, np.uint8), format="bgr24")
                picture.pts, picture.time_base = i + 5 * len(parts), Fraction(1, 25)
                container.mux(video.encode(picture))
            container.mux(video.encode())
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def test_another_size_is_another_part(stub_model: Maker, two_sizes: Path, out: Path) -> None:
    report = run(stub_model(), two_sizes, out / "a.mp4", out / "a.jsonl")
    assert left(out) == ["a.jsonl", "a.mp4", "a.part2.mp4"]
    assert frames_of(out / "a.mp4") == [(160, 120)] * 5
    assert frames_of(out / "a.part2.mp4") == [(96, 64)] * 4
    assert [row["frame_wh"] for row in rows_of(out / "a.jsonl")] == [[160, 120]] * 5 + [[96, 64]] * 4
    assert report.outputs == (out / "a.mp4", out / "a.part2.mp4", out / "a.jsonl")
    run(stub_model(), two_sizes, out / "a.mp4")  # again: a part that is there is never lost
    assert left(out) == ["a.jsonl", "a.mp4", "a.part2.mp4", "a.part3.mp4"]


def test_an_older_file_stays_until_the_first_frame(stub_model: Maker, tmp_path: Path, out: Path, clip: Maker) -> None:
    old = {name: f"old {name}".encode() for name in ("a.mp4", "a.jsonl")}
    for name, content in old.items():
        (out / name).write_bytes(content)
    (tmp_path / "bad.mp4").write_bytes(b"no video " * 99)
    with pytest.raises(DataError):
        run(stub_model(), tmp_path / "bad.mp4", out / "a.mp4", out / "a.jsonl", recording=Recording(frames=out / "f"))
    assert {name: (out / name).read_bytes() for name in old} == old
    run(stub_model(), clip(frames=3), out / "a.mp4", out / "a.jsonl")
    assert len(frames_of(out / "a.mp4")) == len(rows_of(out / "a.jsonl")) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_segments(stub_model: Maker, clip: Maker, out: Path, suffix: str) -> None:
    report = run(stub_model(), clip(frames=60), recording=Recording(out / f"belt{suffix}", segment_s=1.0))
    paths = segments.segments(out / f"belt{suffix}")
    assert tuple(paths) == report.outputs
    assert [len(frames_of(path)) for path in paths] == [25, 25, 10]
    ages = [time.time() - calendar.timegm(time.strptime(path.name[5:21], "%Y%m%dT%H%M%SZ")) for path in paths]
    assert all(-1 <= age < 60 for age in ages)
    run(stub_model(), clip(frames=10), recording=Recording(out / f"belt{suffix}", segment_s=1.0))
    assert len(segments.segments(out / f"belt{suffix}")) == 4  # a later run adds to them


def test_the_oldest_segments_go_and_nothing_else(
    stub_model: Maker, clip: Maker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_PRUNE_EVERY_S", 0.0)
    own = [f"belt-2020010{day}T000000Z{part}.mp4" for day in (1, 2) for part in ("", ".part2", ".part10")]
    others = ["belt.mp4", "belt-1.mp4", "belt-20200101T000000Z.mkv", "other-20200101T000000Z.mp4",
              "belt-20200101T000000Z.mp4.txt", "my belt-20200101T000000Z.mp4"]  # fmt: skip
    for name in own + others:
        (out / name).write_bytes(b"x" * 100_000)
    assert [path.name for path in segments.segments(out / "belt.mp4")] == own
    keep = Recording(out / "belt.mp4", segment_s=1.0, keep_bytes=230_000)
    report = run(stub_model(), clip(frames=60), recording=keep)
    assert all((out / name).is_file() for name in others)
    remaining = segments.segments(out / "belt.mp4")
    assert sum(path.stat().st_size for path in remaining) <= 230_000
    older = [path.name for path in remaining if path.name in own]
    assert older == own[-len(older) :]
    assert len(older) in (1, 2)
    assert tuple(remaining[len(older) :]) == report.outputs
    assert len(report.outputs) == 3


@pytest.mark.parametrize("picture_format", ["jpg", "png"])
def test_a_picture_per_frame(stub_model: Maker, clip: Maker, out: Path, picture_format: str) -> None:
    recording = Recording(frames=out / "new" / "f", picture_format=picture_format)
    report = run(stub_model(), clip(frames=4), out / "a.mp4", recording=recording)
    assert left(out / "new" / "f") == [f"{i:08d}.{picture_format}" for i in range(4)]
    assert report.outputs == (out / "a.mp4", out / "new" / "f")
    with av.open(str(out / "a.mp4")) as container:
        for number, frame in enumerate(container.decode(video=0)):
            image = cv2.imread(str(out / "new" / "f" / f"{number:08d}.{picture_format}"))
            assert np.abs(image.astype(int) - frame.to_ndarray(format="bgr24")).mean() < 4


@pytest.mark.parametrize("victim", [Recorder, JsonLines, Pictures])
@pytest.mark.parametrize("when", ["write", "close"])
def test_a_sink_that_fails_does_not_stop_the_others(
    stub_model: Maker, clip: Maker, out: Path, monkeypatch: pytest.MonkeyPatch, victim: type, when: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(victim, when, broken)
    events = Events()
    report = run(
        stub_model(), clip(frames=7), out / "a.mp4", out / "a.jsonl",
        recording=Recording(frames=out / "f"), events=events,
    )  # fmt: skip
    assert report.frames == 7
    assert report.failures[0].endswith("No space left on device.")
    assert events.counters()["output_stopped"] == len(report.failures) == 1
    assert "outputs stopped by errors: 1" in report.summary()
    if victim is not Recorder:
        assert len(frames_of(out / "a.mp4")) == 7
    if victim is not JsonLines:
        assert len(rows_of(out / "a.jsonl")) == 7
    if victim is not Pictures:
        assert len(left(out / "f")) == 7


def test_on_full_exit(stub_model: Maker, clip: Maker, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JsonLines, "write", lambda *_: 1 / 0)
    with pytest.raises(OutputError, match=r"Cannot write '.*a\.jsonl': division by zero"):
        run(stub_model(), clip(frames=50), out / "a.mp4", out / "a.jsonl", recording=Recording(on_full="exit"))
    assert 1 <= len(frames_of(out / "a.mp4")) < 50  # what was recorded stands


def test_a_place_that_cannot_be_written(stub_model: Maker, clip: Maker, out: Path) -> None:
    model, source, events = stub_model(), clip(frames=4), Events()
    (out / "file").write_text("in the way")
    report = run(model, source, out / "file" / "a.mp4", out / "a.jsonl", events=events)
    assert report.frames == len(rows_of(out / "a.jsonl")) == 4
    assert "Cannot write" in report.failures[0]
    assert events.counters() == {"model": 1, "output_stopped": 1}
    with pytest.raises(OutputError, match="Cannot write"):  # nothing is left to write to
        run(model, source, out / "file" / "a.mp4")
    with pytest.raises(OutputError, match="got the folder"):  # a slip, not a disk
        run(model, source, out / "b.mp4", out)
    with pytest.raises(OutputError, match="Expected a folder"):
        run(model, source, recording=Recording(frames=out / "file", json=out / "b.jsonl"))
    assert left(out) == ["a.jsonl", "file"]


def test_without_an_encoder_the_others_go_on(
    stub_model: Maker, clip: Maker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "ENCODERS", ())
    events = Events()
    report = run(stub_model(), clip(frames=4), out / "a.mp4", out / "a.jsonl", events=events)
    assert report.frames == len(rows_of(out / "a.jsonl")) == 4
    assert report.outputs == (out / "a.jsonl",)
    assert "one of the video encoders" in report.failures[0]
    assert events.counters() == {"model": 1, "output_stopped": 1}
    with pytest.raises(OutputError, match="one of the video encoders"):
        run(stub_model(), clip(), out / "a.mp4", out / "b.jsonl", recording=Recording(on_full="exit"))
    with pytest.raises(OutputError, match="one of the video encoders"):  # nothing is left to write to
        run(stub_model(), clip(), out / "a.mp4")
    assert left(out) == ["a.jsonl"]


def test_a_disk_that_stays_full_does_not_fill_with_empty_files(
    stub_model: Maker, clip: Maker, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(growing, "write_all", full)
    for _ in range(2):
        with pytest.raises(OutputError, match="No space left"):
            run(stub_model(), clip(), recording=Recording(out / "a.mp4", segment_s=60.0, on_full="exit"))
    assert not left(out)


def unit() -> tuple[list[str], dict[str, str]]:
    """The words of the command in the sample for systemd, and its other settings."""
    text = (Path(__file__).parents[2] / "samples/systemd/trt-blendmask.service").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if "=" in line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines)
    return settings.pop("ExecStart").split(), settings


def test_the_unit_of_systemd_starts_again_where_the_disk_is_full(stub_model: Maker, out: Path) -> None:
    words, settings = unit()
    source = "synthetic:conveyor?live=1&fps=50&size=256x144"
    words = [word.replace("/var/lib/trt-blendmask", str(out)) for word in words]
    words = [word.replace("${SOURCE}", source).replace("$SOURCE", source) for word in words]  # as systemd does
    assert not any(source in word for word in words)  # where `ps` would show it
    words[2] = str(stub_model())
    result = subprocess.run(
        [sys.executable, "-m", "trt_blendmask", *words[1:]], env=os.environ | {"SOURCE": source},
        capture_output=True, text=True, check=False, timeout=60, preexec_fn=limited(30_000),
    )  # fmt: skip
    assert result.returncode == 74, result.stderr
    assert settings["Restart"] == "always"
    assert "74" not in settings["RestartPreventExitStatus"].split()
    assert float(settings["RestartSec"]) >= 5  # a disk that stays full is not hammered


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(("on_full", "suffix"), [("stop-output", ".mp4"), ("exit", ".mkv")])
def test_files_that_may_not_grow(stub_model: Maker, tmp_path: Path, on_full: str, suffix: str) -> None:
    video, lines = tmp_path / f"a{suffix}", tmp_path / "a.jsonl"
    words = ["run", str(stub_model()), "synthetic:conveyor?seed=3&size=256x144", "--max-frames", "40"]
    words += ["--save", str(video), "--json", str(lines), "--score", "0.99", "--on-full", on_full]
    result = subprocess.run(
        [sys.executable, "-m", "trt_blendmask", *words],
        capture_output=True, text=True, check=False, preexec_fn=limited(30_000),
    )  # fmt: skip
    assert result.returncode == 74
    assert f"output stopped (Cannot write the video '{video}': File too large" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error[74]: Cannot write the video")
    frames, rows = frames_of(video), rows_of(lines)
    assert video.stat().st_size <= 30_000
    assert 2 < len(frames) < 40
    if on_full == "stop-output":
        assert len(rows) == 40
        assert "40 frames in" in result.stdout
    else:
        assert len(frames) - 1 <= len(rows) <= len(frames) + 2  # the lines got the frame with which the video broke


def test_lines_on_standard_output_are_alone_there(stub_model: Maker, clip: Maker) -> None:
    words = [sys.executable, "-m", "trt_blendmask", "run", str(stub_model()), str(clip(frames=5)), "--json", "-"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert [json.loads(line)["frame"] for line in result.stdout.splitlines()] == list(range(5))
    assert "5 frames in" in result.stderr


def test_a_reader_that_leaves_ends_the_run(stub_model: Maker) -> None:
    words = [sys.executable, "-m", "trt_blendmask", "run", str(stub_model())]
    words += ["synthetic:conveyor?live=1&fps=50&size=128x72", "--json", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["frame"] >= 0
        process.stdout.close()
        assert process.wait(20) == 74
        assert "Broken pipe" in process.stderr.read()


@pytest.mark.parametrize(
    "words",
    [
        ["--keep", "20GB", "--save", "a.mp4"],
        ["--segment", "10m"],
        ["--save", "a.mp4", "--segment", "0.5s"],
        ["--save", "a.mp4", "--segment", "ten"],
        ["--save", "a.mp4", "--segment", "10x"],
        ["--save", "a.mp4", "--segment", "1h", "--keep", "20"],
        ["--save", "a.mp4", "--segment", "1h", "--keep", "-1GB"],
        ["--json", "-", "--json-masks", "png"],
        ["--frames", "f", "--frames-format", "gif"],
        ["--save", "a.avi"],
        ["--on-full", "panic"],
    ],
)
def test_wrong_usage(stub_model: Maker, words: list[str]) -> None:
    try:
        code = cli.main(["run", str(stub_model()), "synthetic:conveyor", *words])
    except SystemExit as stop:
        code = stop.code
    assert code == 2


@pytest.mark.parametrize("more", [{}, {"json": Path("a.jsonl")}])
def test_a_folder_that_cannot_be_asked_for_costs_that_output(
    stub_model: Maker, clip: Maker, out: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Path]
) -> None:
    model, source = stub_model(), clip(frames=4)
    monkeypatch.chdir(out)
    recording = Recording(frames=out / ("x" * 300), **more)
    if not more:
        with pytest.raises(OutputError, match=r"Cannot write .*File name too long"):
            run(model, source, recording=recording)
        return
    report = run(model, source, recording=recording)
    assert report.frames == len(rows_of(out / "a.jsonl")) == 4
    assert "File name too long" in report.failures[0]
