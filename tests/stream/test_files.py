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

from . import clips, frame_code
from .measures import resources


def test_flipped_bits_cost_few_frames(tmp_path: Path) -> None:
    path = tmp_path / "flipped.ts"
    path.write_bytes(clips.with_flipped_bits(clips.transport_stream(300), 80, seed=4))
    source = open_source(str(path))
    frames = list(source)
    assert len(frames) >= 297
    assert source.corrupt >= 10
    assert [f.index for f in frames] == list(range(len(frames)))
    numbers = [found[0] for f in frames if (found := frame_code.read(f.image))]
    assert len(numbers) > 100
    source.close()


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
