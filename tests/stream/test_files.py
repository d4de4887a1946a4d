"""Video files that are damaged, change their size, or keep no steady pace."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import open_source
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.stamp import Stamp

from . import clips, frame_code
from .measures import resources


@pytest.mark.parametrize("seed", [3, 4])  # 3 makes up one more track
def test_flipped_bits_cost_few_frames(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "flipped.ts"
    path.write_bytes(clips.with_flipped_bits(clips.transport_stream(300), 80, seed))
    source = open_source(str(path))
    frames = list(source)
    assert len(frames) >= 297
    assert source.corrupt >= 10
    assert [f.index for f in frames] == list(range(len(frames)))
    numbers = [found[0] for f in frames if (found := frame_code.read(f.image))]
    assert len(numbers) > 100
    source.close()


def test_the_end_is_not_where_a_long_stretch_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "zeros.mp4"
    packets, content = clips.recording(path, 150), bytearray(path.read_bytes())
    begin, end = packets[30][1], packets[80][1]  # fifty packets in a row
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    key = next(i for i, (is_key, _, _) in enumerate(packets) if is_key and i >= 80)
    source = open_source(str(path))
    numbers = [found[0] for frame in source if (found := frame_code.read(frame.image))]
    assert {*range(30), *range(key, 150)} <= set(numbers)
    assert len(numbers) == len(set(numbers))
    assert source.corrupt >= 20
    source.close()


@pytest.mark.parametrize("earlier_s", [0.0, 3.0, 80.0])  # FFmpeg takes a minute back for the turn of MPEG-TS's clock
def test_times_go_on_where_those_of_a_joined_file_begin_again(tmp_path: Path, earlier_s: float) -> None:
    path, second = tmp_path / "joined.ts", clips.transport_stream(20, first=20)
    path.write_bytes(clips.transport_stream(20, begin_s=earlier_s) + second)
    source = open_source(str(path))
    frames = list(source)
    assert [frame_code.read(f.image) for f in frames] == [(i, 0) for i in range(40)]
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(40) / 25, atol=1e-4)
    source.close()


def recorded_times(pts_s: list[float | None], fps: float) -> list[float]:
    stamp, image = Stamp("file", Events()), np.zeros((24, 32, 3), np.uint8)
    return [stamp.recorded(Shot(image, one, 50.0, False), fps).time_s for one in pts_s]


def test_recorded_times_keep_their_gaps_and_only_grow() -> None:
    assert recorded_times([9, 9.04, 609.04, 609.08], 25) == pytest.approx([0, 0.04, 600.04, 600.08])
    assert recorded_times([9, 9.04, 90000, 90000.04, 3], 25) == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert recorded_times([9, None, 9.08, None], 25) == pytest.approx([0, 0.04, 0.08, 0.12])
    jittered = recorded_times([0, 0.04, 0.04, 0.03, 0.16, 0.2, 0.19, 0.28], 25)
    assert np.diff(jittered).min() > 1 / 90000
    assert jittered[-1] == pytest.approx(0.28)
    fast = recorded_times([i / 2000 for i in range(100)], 2000)
    assert fast == pytest.approx(np.arange(100) / 2000)


def test_another_size_in_the_middle_is_an_event_and_no_stretched_picture(tmp_path: Path) -> None:
    path, events = tmp_path / "joined.ts", Events()
    path.write_bytes(clips.transport_stream(20, (640, 480)) + clips.transport_stream(20, (640, 240), first=20))
    source = open_source(str(path), events=events)
    frames = list(source)
    assert [f.frame_wh for f in frames] == [(640, 480)] * 20 + [(640, 240)] * 20
    assert [frame_code.read(f.image) for f in frames] == [(i, 0) for i in range(40)]
    assert [(e.kind, e.details["to_wh"]) for e in events.history()] == [("format_changed", [640, 240])]
    source.close()


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.04, 0.2, 0.033, 1.5, 0.04, 0.04, 0.7])
    source = open_source(str(clips.at_times(tmp_path / "vfr.mkv", times)))
    np.testing.assert_allclose([f.time_s for f in source], times, atol=2e-3)
    source.close()


def test_close_from_another_thread_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "long.ts"
    path.write_bytes(clips.transport_stream(200))
    for _ in range(5):
        source = open_source(str(path))
        seen: list[int] = []
        thread = threading.Thread(target=lambda source=source, seen=seen: seen.extend(f.index for f in source))
        thread.start()
        time.sleep(0.01)
        source.close()
        thread.join(2)
        assert not thread.is_alive()
        assert len(seen) < 200


def test_frames_that_nobody_holds_are_gone_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(clips.transport_stream(60))
    source = open_source(str(path))
    frames = iter(source)
    gc.collect()
    gc.disable()  # what hangs together in a ring would stay until Python looks for such
    try:
        for _ in range(50):
            next(frames)
        assert sum(type(one).__name__ == "VideoFrame" for one in gc.get_objects()) < 10
    finally:
        gc.enable()
    source.close()


def test_no_frame_starts_threads_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(clips.transport_stream(60))
    source = open_source(str(path))
    threads = [resources()["threads"] for _ in source]
    assert max(threads) <= threads[0] + (os.cpu_count() or 1)
    source.close()


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_every_frame_says_when_it_was_read(tmp_path: Path, keep: float) -> None:
    path, content = tmp_path / "cut.ts", clips.transport_stream(30)
    path.write_bytes(content[: int(len(content) * keep)])
    source, began = open_source(str(path)), time.monotonic()
    frames = list(source)
    assert 5 < len(frames) < 30
    assert all(began <= f.captured_s <= time.monotonic() and abs(f.wall_s - time.time()) < 60 for f in frames)
    assert {f.source for f in frames} == {str(path)}
    assert (source.live, source.dropped, source.state().kind) == (False, 0, "ENDED")
    source.close()
