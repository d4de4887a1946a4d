"""`run` from end to end on a stub model: what is written, in which order, and what is left behind after a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from trt_blendmask.errors import DataError, InputMissingError, OutputError, UsageError
from trt_blendmask.runtime import progress
from trt_blendmask.runtime.flow import Ticket
from trt_blendmask.runtime.job import Job
from trt_blendmask.runtime.pipeline import RunReport, run
from trt_blendmask.runtime.result import FrameResult

Maker = Callable[..., Path]


def decode(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [f.to_ndarray(format="bgr24") for f in frames], [float(f.time) for f in frames]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def no_threads_left() -> object:
    before = threading.active_count()
    yield None
    assert threading.active_count() == before


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_run_writes_every_frame_in_order(stub_model: Maker, clip: Maker, tmp_path: Path, suffix: str) -> None:
    save, lines = tmp_path / f"out/masks{suffix}", tmp_path / "out/masks.jsonl"
    report = run(stub_model(), clip(frames=12, fps=30), save, lines)
    images, times = decode(save)
    assert report.frames == len(images) == 12
    assert report.detections == 36
    assert images[0].shape == (120, 160, 3)
    np.testing.assert_allclose(times, np.arange(12) / 30, atol=2e-3)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(12))
    np.testing.assert_allclose([row["time_s"] for row in rows], np.arange(12) / 30, atol=1e-5)
    first_scores = [row["detections"][0]["score"] for row in rows]  # the stub's score follows the brightness
    np.testing.assert_allclose(np.diff(first_scores), 12e-3 * 64 * 85 / (64 * 96), atol=2e-3)
    assert set(report.stage_ms) == {"decode", "letterbox", "network", "collect", "paste", "draw", "encode"}
    assert f"wrote {save}, {lines}" in report.summary()
    assert left(tmp_path / "out") == {save.name, lines.name}


def test_saved_colours_are_those_of_the_source(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    save, source = tmp_path / "out.mp4", clip()
    run(stub_model(), source, save, score=0.99)
    (ours, _), (theirs, _) = decode(save), decode(source)
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a[30:].astype(int) - b[30:]).max() <= 3
        assert np.abs(a[2:8, 2:8].astype(int) - b[2:8, 2:8]).max() <= 12


def test_overlay_is_drawn(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    save, source = tmp_path / "out.mp4", clip(frames=2)
    run(stub_model(), source, save)
    changed = np.abs(decode(save)[0][0].astype(int) - decode(source)[0][0]).max(axis=2) > 25
    assert changed[24 * 120 // 64, 24 * 120 // 64]  # the centre of the first box, from input to frame pixels
    assert not changed[110:, :40].any()


def test_score_and_max_frames(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    report = run(stub_model(), clip(), json=lines, score=0.5, max_frames=4)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert report.frames == len(rows) == 4
    assert all(len(row["detections"]) == 2 for row in rows)


def test_picture_folder_in_natural_order(stub_model: Maker, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (10, 9, 1):
        cv2.imwrite(str(folder / f"p{number}.png"), np.full((64, 96, 3), number, np.uint8))
    (folder / "p5.png").write_bytes(b"broken")
    (folder / "notes.txt").write_text("no picture")
    lines = tmp_path / "out.jsonl"
    report = run(stub_model(), folder, tmp_path / "out.mp4", lines)
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["file_name"] for row in rows] == ["p1.png", "p9.png", "p10.png"]
    assert report.corrupt == 1
    assert "1 corrupt frame:" in report.summary()


def test_ctrl_c_keeps_what_was_recorded(
    stub_model: Maker, clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect = Job._detect

    def interrupted(self: Job, thread: int, tickets: Sequence[Ticket]) -> list[FrameResult | None]:
        if tickets[0].number == 5:
            raise KeyboardInterrupt
        return detect(self, thread, tickets)

    monkeypatch.setattr(Job, "_detect", interrupted)
    save, lines = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    report = run(stub_model(), clip(), save, lines)
    assert report.stopped
    assert report.frames == len(decode(save)[0]) == len(lines.read_text().splitlines()) == 5


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("stage", ["_frames", "_detect", "_write"])
def test_a_stage_that_raises_stops_everything_with_its_own_error(
    stub_model: Maker, clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def failing(*_: object) -> object:
        raise ArithmeticError("this stage is broken")

    monkeypatch.setattr(Job, stage, failing)
    model, source, out = stub_model(), clip(), tmp_path / "out"
    out.mkdir()
    with pytest.raises(ArithmeticError, match="this stage is broken"):
        run(model, source, out / "a.mp4", out / "a.jsonl")
    assert left(out) == set()


@pytest.mark.usefixtures("no_threads_left")
def test_a_source_that_breaks_off_is_written_as_far_as_it_goes(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    whole = clip(frames=60, name="whole.mkv")
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    report = run(stub_model(), broken, tmp_path / "out.mp4")
    assert 5 < report.frames < 60
    assert len(decode(tmp_path / "out.mp4")[0]) == report.frames


BAD_SOURCES = {
    "missing": (None, InputMissingError),
    "empty": (b"", DataError),
    "text": (b"not a video, only words\n" * 50, DataError),
    "noise": (bytes(range(256)) * 64, DataError),
    "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", DataError),
}


@pytest.mark.usefixtures("no_threads_left")
@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_bad_videos(stub_model: Maker, tmp_path: Path, kind: str) -> None:
    content, error = BAD_SOURCES[kind]
    source, out = tmp_path / "bad.mp4", tmp_path / "out"
    if content is not None:
        source.write_bytes(content)
    out.mkdir()
    with pytest.raises(error, match=r"Expected a video.*bad\.mp4") as caught:
        run(stub_model(), source, out / "a.mp4", out / "a.jsonl")
    assert "\n" not in str(caught.value)
    assert left(out) == set()


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9])
def test_truncated_mp4(stub_model: Maker, clip: Maker, tmp_path: Path, keep: float) -> None:
    whole, out = clip(frames=30), tmp_path / "out"
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * keep)])
    out.mkdir()
    with pytest.raises(DataError, match="Expected a video"):
        run(stub_model(), whole, out / "a.mp4")
    assert left(out) == set()


def test_sound_only_is_no_video(stub_model: Maker, tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in (*sound.encode(frame), *sound.encode()):
            container.mux(packet)
    with pytest.raises(DataError, match="holds no video"):
        run(stub_model(), path)


@pytest.mark.parametrize("source", ["synthetic:river", "synthetic:conveyor?seed=x", "synthetic:conveyor?speed=2"])
def test_wrong_synthetic_options(stub_model: Maker, source: str) -> None:
    with pytest.raises(UsageError, match=r"Expected synthetic:conveyor\[\?seed=1"):
        run(stub_model(), source)


def test_unwritable_outputs(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    model, source = stub_model(), clip()
    (tmp_path / "file").write_text("in the way")
    before = left(tmp_path)
    with pytest.raises(OutputError, match="Cannot write"):
        run(model, source, tmp_path / "file" / "a.mp4")
    with pytest.raises(OutputError):
        run(model, source, json=tmp_path)
    with pytest.raises(UsageError, match=r"ending in \.mp4 or \.mkv, got"):
        run(model, source, tmp_path / "a.avi")
    for same in (model, source):
        with pytest.raises(UsageError, match="would overwrite"):
            run(model, source, json=same)
    assert left(tmp_path) == before


def test_stage_times_are_per_frame_whatever_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(now)))
    clock = progress.StageClock()
    for _ in range(4):  # two frames, each written to two files
        with clock.measure("encode"):
            pass
    assert clock.mean_ms(2) == {"encode": 2000.0}


def test_one_of_a_thing_is_not_told_as_many() -> None:
    summary = RunReport(1, 1, 0.5, {}, corrupt=1, stopped=False).summary()
    assert summary.startswith("1 frame in 0.5 s, 2.0 FPS, 1 detection, 1 corrupt frame")
