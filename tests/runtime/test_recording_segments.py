"""Which file a frame goes to, and which files go to make room, where clocks are wrong and cameras are away for long."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording import recorder, segments
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import Detections, Frame


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def plain(time_s: float, wall_s: float = 0.0, pixel_aspect: Fraction = Fraction(1)) -> FrameResult:
    """A frame in which nothing was found."""
    none = np.zeros((0, 4), np.float32)
    found = Detections(none, none[:, 0], none[:, 0].astype(np.int32), none.reshape(0, 1, 1), (64, 48), ("nut",))
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, time_s, wall_s=wall_s, pixel_aspect=pixel_aspect)
    return FrameResult(frame, found, SourceState("LIVE", 0.0))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_another_shape_of_the_pixels_is_another_part(tmp_path: Path, suffix: str) -> None:
    file, aspects = Recorder(tmp_path / f"a{suffix}", lambda: 25.0, Events()), [Fraction(64, 45), Fraction(16, 15)]
    for number, aspect in enumerate([aspects[0]] * 3 + [aspects[1]] * 4):
        file.write(plain(number / 25, pixel_aspect=aspect))
    file.close()
    for path, aspect, count in zip(file.written, aspects, (3, 4), strict=True):
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect
            assert len(list(container.decode(video=0))) == count


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_segment_that_is_recorded_stays_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that boots in 1970 is told the time, and then the time is corrected by an hour."""
    monkeypatch.setattr(recorder, "_PRUNE_EVERY_S", 0.0)
    (tmp_path / "a-20261120T000000Z.mkv").write_bytes(b"x" * 1000)
    file = Recorder(tmp_path / "a.mkv", lambda: 25.0, Events(), 60.0, keep_bytes=1)
    for number, wall_s in enumerate((1000.0, 1_800_003_600.0, 1_800_000_060.0)):
        file.write(plain(60.0 * number, wall_s))
        file.write(plain(60.0 * number + 1, wall_s + 1))
        assert left(tmp_path) == [path.name for path in file.written]
    file.close()
    assert left(tmp_path) == ["a-20270115T080100Z.mkv"]
    assert times_of(tmp_path / "a-20270115T080100Z.mkv") == [0.0, 1.0]


def test_segments_of_earlier_runs_go_first_and_ours_as_they_were_written(tmp_path: Path) -> None:
    files = [tmp_path / f"a-{year}0101T000000Z.mp4" for year in (2025, 2026, 2027, 1970, 2024)]
    ours = files[2:]
    for path in files:
        path.write_bytes(b"x" * 1000)
    for number in range(4):
        assert segments.prune(tmp_path / "a.mp4", 4500 - 1000 * number, ours) == [files[number]]
    assert segments.prune(tmp_path / "a.mp4", 10, ours) == []
    assert left(tmp_path) == [ours[-1].name]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_comes_after_a_night_without_frames_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    day = [0.0, 0.04, *(3600.0 * hour for hour in range(1, 9))]  # no gap too long, but too long in all
    file = Recorder(tmp_path / f"a{suffix}", lambda: 25.0, Events())
    for time_s in [*day, *(day[-1] + 30_000.0 + more_s for more_s in (0.0, 0.2, 5.0))]:
        file.write(plain(time_s))
    file.close()
    assert left(tmp_path) == [f"a{suffix}", f"a.part2{suffix}"]
    np.testing.assert_allclose(times_of(tmp_path / f"a{suffix}"), day, atol=1.1e-3)
    np.testing.assert_allclose(times_of(tmp_path / f"a.part2{suffix}"), [0.0, 0.2, 5.0], atol=1.1e-3)
