"""Standard input: what another program pipes in."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from trt_blendmask.errors import DataError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import LiveOptions, open_source
from trt_blendmask.runtime.sources import stdin as stdin_source
from trt_blendmask.runtime.sources.live import LiveSource

from . import clips, frame_code

pytestmark = pytest.mark.usefixtures("no_threads_left")


def mjpeg(frames: int, orientation: int = 0) -> bytes:
    return b"".join(clips.jpeg(i, orientation) for i in range(frames))


def yuv4mpeg(frames: int) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="yuv4mpegpipe") as container:
        video = container.add_stream("wrapped_avframe", rate=50)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(clips.coded(i, (320, 240)), format="bgr24").reformat(format="yuv420p")
            frame.pts = i
            container.mux(video.encode(frame))
    return file.getvalue()


class Pipe:
    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def feed(self, content: bytes) -> threading.Thread:
        """Write all of it, then close."""
        thread = threading.Thread(target=self._feed, args=(content,))
        thread.start()
        return thread

    def _feed(self, content: bytes) -> None:
        with os.fdopen(self.write, "wb") as end:
            end.write(content)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    """Stands in for file 0."""
    made = Pipe()
    monkeypatch.setattr(
        "trt_blendmask.runtime.sources.connect_stdin", lambda left: stdin_source.connect_stdin(left, made.read)
    )
    yield made
    os.close(made.read)


@pytest.mark.parametrize(
    ("content", "fps"),
    [(mjpeg(40), 25), (mjpeg(40, 6), 25), (yuv4mpeg(40), 50), (clips.transport_stream(40), 25)],
    ids=["mjpeg", "mjpeg with EXIF", "yuv4mpeg", "mpegts"],
)
def test_all_frames_come_in_order_and_at_their_times(pipe: Pipe, content: bytes, fps: int) -> None:
    feeder = pipe.feed(content)
    source = open_source("-", LiveOptions(stale_s=0.1))
    frames = []
    for frame in source:
        frames.append(frame)
        if frame.index == 3:
            time.sleep(0.3)  # a slow reader holds the other program up
    feeder.join()
    assert [frame_code.read(frame.image) for frame in frames] == [(i, 0) for i in range(40)]
    assert frames[-1].time_s == pytest.approx(39 / fps, abs=1e-3)
    assert not source.live
    assert source.state().kind == "ENDED"
    source.close()


@pytest.mark.parametrize(("content", "words"), [(b"", "nothing came"), (b"no video, only words\n" * 99, "none")])
def test_what_is_no_video(pipe: Pipe, content: bytes, words: str) -> None:
    pipe.feed(content)
    source = open_source("-")
    with pytest.raises(DataError, match=f"standard input, but .*{words}"):
        list(source)
    source.close()


def test_close_while_nothing_comes(pipe: Pipe) -> None:
    source = open_source("-")
    assert isinstance(source, LiveSource)
    time.sleep(0.1)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1
    assert list(source) == []
    os.close(pipe.write)


def test_one_that_breaks_off_is_kept_as_far_as_it_goes(pipe: Pipe) -> None:
    pipe.feed(clips.transport_stream(60)[:30000])
    source, events = open_source("-"), Events()
    assert 20 < len(list(source)) < 60
    assert events.counters() == {}
    source.close()


@pytest.mark.parametrize("missing", [1, 60_000, 115_120, 115_199, 115_203])  # bytes of the last frame's 115,200
def test_yuv4mpeg_that_ends_inside_a_frame_is_told(pipe: Pipe, missing: int) -> None:
    pipe.feed(yuv4mpeg(5)[:-missing])
    events = Events()
    source = open_source("-", events=events)
    assert len(list(source)) == 4
    assert "inside a frame" in source.cut_short
    assert events.counters()["source_ended_early"] == 1
    source.close()


@pytest.mark.parametrize("more", clips.BEHIND_YUV4MPEG)
def test_yuv4mpeg_with_something_behind_it_is_whole(pipe: Pipe, more: bytes) -> None:
    pipe.feed(yuv4mpeg(5) + more)
    source = open_source("-")
    assert (len(list(source)), source.cut_short) == (5, "")
    source.close()


def test_an_mp4_with_its_index_at_its_end_is_told_at_once(
    pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdin_source, "_CHUNK", 4096)  # a small file would fit into FFmpeg's buffer
    clips.recording(tmp_path / "a.mp4", 50)
    pipe.feed((tmp_path / "a.mp4").read_bytes())
    events = Events()
    source = open_source("-", events=events)
    with pytest.raises(DataError, match=r"index at its end .* Name the file"):
        list(source)
    assert events.history() == ()
    source.close()
