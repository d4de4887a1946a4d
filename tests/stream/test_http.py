"""HTTP: MJPEG cameras, HLS playlists and recordings."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from pathlib import Path

import av
import pytest

from trt_blendmask.errors import SourceUnavailableError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import LiveOptions, network, open_source
from trt_blendmask.runtime.sources.grammar import parse

from . import clips, frame_code
from .conftest import until
from .mjpeg_server import MjpegServer
from .test_rtsp import QUICK, Watcher, reasons

pytestmark = pytest.mark.usefixtures("fast", "no_threads_left")


def test_mjpeg_is_live_by_the_clock_of_arrival() -> None:
    events = Events()
    with MjpegServer(fps=12.5) as server:
        source = open_source(server.url, QUICK, events)
        frames = [frame for frame, _ in zip(source, range(14), strict=False)]
        assert source.live
        pace = (frames[-1].time_s - frames[4].time_s) / (frames[-1].index - frames[4].index)
        assert pace == pytest.approx(0.08, rel=0.35)  # FFmpeg makes up 0.04
        camera = Watcher(source)
        server.mode = "freeze"
        assert until(lambda: source.state().kind == "NO SIGNAL")
        server.mode = "ok"
        assert until(lambda: source.state().kind == "LIVE")
        server.mode = "close"
        assert until(lambda: source.state().kind == "NO SIGNAL")
        server.mode = "ok"
        assert until(lambda: source.state().kind == "LIVE")
        assert reasons(events)[0] == "stale"
        assert camera.close() < 2


@pytest.mark.parametrize(("status", "words"), [(401, "password"), (404, "404"), (503, "answered with an error")])
def test_refusals_are_named(status: int, words: str) -> None:
    with MjpegServer() as server:
        server.status = status
        with pytest.raises(SourceUnavailableError, match=words):
            open_source(server.url, LiveOptions(wait=False))


MULTIPART = {  # what cameras write besides what FFmpeg takes: the beginning, and what stands before each picture
    "a character set": ("", "--frame\r\nContent-Type: image/jpeg; charset=utf-8\r\nContent-Length: {}\r\n\r\n"),
    "no type": ("", "--frame\r\n\r\n"),
    "words before it": ("a camera\r\n", "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"),
    "nothing but pictures": ("", ""),
}


@pytest.mark.parametrize("kind", MULTIPART)
def test_parts_that_are_not_as_ffmpeg_wants_them(kind: str) -> None:
    with MjpegServer() as server:
        server.begin, server.part = MULTIPART[kind]
        source = open_source(server.url, LiveOptions(wait=False))
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
        numbers = [found[0] for frame in frames if (found := frame_code.read(frame.image))]
        assert (source.live, source.corrupt, len(numbers)) == (True, 0, 5)
        assert numbers == sorted(set(numbers))
        source.close()


def test_pictures_that_are_cut_short_are_shown_and_counted() -> None:
    events = Events()
    with MjpegServer() as server:
        server.cut = True
        source = open_source(server.url, LiveOptions(wait=False), events)
        assert len([frame for frame, _ in zip(source, range(15), strict=False)]) == 15
        assert 3 <= source.corrupt <= server.sent / 3
        assert events.counters()["corrupt_frames"] >= 1
        source.close()


def test_a_nominal_length_makes_no_recording_of_a_camera() -> None:
    with MjpegServer() as server:
        server.length, (server.begin, server.part) = "2147483647", MULTIPART["a character set"]
        source = open_source(server.url, LiveOptions(wait=False))
        assert len([frame for frame, _ in zip(source, range(5), strict=False)]) == 5
        assert source.live
        source.close()


@pytest.mark.parametrize("name", ["one.jpg", "one", "live"])  # the last does not tell its length
def test_one_picture_is_no_video_and_none_of_its_frames(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(clips.jpeg(7))
    events = Events()
    with MjpegServer(tmp_path) as server:
        server.most, server.part = 1, ""
        source = open_source(server.url.replace("live", name), LiveOptions(max_retries=2), events)
        with pytest.raises(SourceUnavailableError, match="it answers with one picture, not a video after 2 more tries"):
            list(itertools.islice(source, 3))
        source.close()
    assert events.counters() == {"source_waiting": 2}


def test_a_camera_that_shows_one_picture_while_it_starts_is_waited_for() -> None:
    with MjpegServer() as server:
        part, server.most, server.part = server.part, 1, ""
        source = open_source(server.url, QUICK)
        assert until(lambda: "one picture" in source.state().reason)
        server.most, server.part = 1 << 30, part
        assert len([frame for frame, _ in zip(source, range(3), strict=False)]) == 3
        assert source.live
        source.close()


def test_an_answer_without_content_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with MjpegServer(tmp_path) as server, pytest.raises(SourceUnavailableError, match="what comes is no video"):
        open_source(server.url.replace("live", "empty"), LiveOptions(wait=False))


@pytest.mark.parametrize(("slow_s", "asked"), [(0.3, 1), (0.05, 2)])
def test_a_server_is_asked_again_only_while_there_is_time(
    slow_s: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[float, float]] = []

    def no_video(*_: object, timeout: tuple[float, float], **__: object) -> None:
        limits.append(timeout)
        time.sleep(slow_s)
        raise av.InvalidDataError(1, "no video")

    monkeypatch.setattr(av, "open", no_video)
    with pytest.raises(av.InvalidDataError):
        network.connect_http(parse("http://h/x"), 0.5, 1.0, threading.Event())
    assert len(limits) == asked
    assert limits[0] == (0.5, 1.0)
    assert limits[-1][0] <= 0.5 - slow_s * (asked - 1)


def test_a_kind_that_is_not_read_is_no_matter_of_a_device(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + bytes(200))
    with MjpegServer(tmp_path) as server, pytest.raises(SourceUnavailableError, match="kind that is not read"):
        open_source(server.url.replace("live", "a.wav"), LiveOptions(wait=False))


def segment(folder: Path, number: int) -> None:
    (folder / f"s{number}.ts").write_bytes(b"")
    with av.open(str(folder / f"s{number}.ts"), "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(clips.coded(25 * number + i, (320, 240)), format="bgr24")
            frame.pts = 25 * number + i
            container.mux(video.encode(frame))
        container.mux(video.encode())


def playlist(folder: Path, first: int, last: int, ended: bool) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
    for number in range(first, last + 1):
        lines += ["#EXTINF:1.0,", f"s{number}.ts"]
    (folder / "new.m3u8").write_text("\n".join(lines + ["#EXT-X-ENDLIST"] * ended) + "\n")
    (folder / "new.m3u8").replace(folder / "a.m3u8")


def test_a_recording_behind_an_address_is_kept_whole_and_ends(tmp_path: Path) -> None:
    for number in range(3):
        segment(tmp_path, number)
    playlist(tmp_path, 0, 2, ended=True)
    with MjpegServer(tmp_path) as server:
        source = open_source(server.url.replace("live", "a.m3u8"))
        numbers = [found[0] for frame in source if (found := frame_code.read(frame.image))]
        assert numbers == list(range(75))
        assert (source.live, source.dropped, source.state().kind) == (False, 0, "ENDED")
        source.close()


@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_a_recording_whose_line_breaks_is_told(tmp_path: Path, keep: float) -> None:
    clips.recording(tmp_path / "a.mp4", 250, movflags="+faststart")
    events = Events()
    with MjpegServer(tmp_path) as server:
        server.keep = keep
        source = open_source(server.url.replace("live", "a.mp4"), QUICK, events)
        count = len(list(source))
        source.close()
    early = [event.details["reason"] for event in events.history() if event.kind == "source_ended_early"]
    if keep == 1:
        assert (count, early, source.cut_short) == (250, [], "")
    else:
        assert 50 < count < 200
        assert len(early) == 1
        assert early[0].endswith("of 10.0 s")
        assert early[0] in source.cut_short
    assert source.state().kind == "ENDED"


def test_live_hls_is_paced_though_it_comes_in_segments(tmp_path: Path) -> None:
    for number in range(6):
        segment(tmp_path, number)
    playlist(tmp_path, 0, 2, ended=False)
    stop = threading.Event()

    def move_on() -> None:
        for first in (1, 2, 3):
            stop.wait(0.95)
            playlist(tmp_path, first, first + 2, ended=False)

    mover = threading.Thread(target=move_on)
    with MjpegServer(tmp_path) as server:
        source = open_source(server.url.replace("live", "a.m3u8"), LiveOptions())
        mover.start()
        arrivals = [(frame.index, time.monotonic()) for frame, _ in zip(source, range(45), strict=False)]
        stop.set()
        mover.join()
        assert source.live
        assert source.dropped <= 5
        gaps = [b[1] - a[1] for a, b in itertools.pairwise(arrivals[2:])]
        assert max(gaps) < 0.5
        assert arrivals[-1][1] - arrivals[2][1] == pytest.approx(42 * 0.04, rel=0.3)
        source.close()


def test_a_live_playlist_that_is_finished_is_waited_for(tmp_path: Path) -> None:
    for number in range(4):
        segment(tmp_path, number)
    playlist(tmp_path, 0, 1, ended=False)
    events = Events()
    with MjpegServer(tmp_path) as server:
        source = open_source(server.url.replace("live", "a.m3u8"), LiveOptions(), events)
        camera = Watcher(source)
        assert camera.more()
        playlist(tmp_path, 0, 1, ended=True)
        assert until(lambda: source.state().kind == "NO SIGNAL")
        requests = server.requests
        assert until(lambda: server.requests > requests + 4)  # asked again and again
        playlist(tmp_path, 2, 3, ended=False)
        assert until(lambda: source.state().kind == "LIVE")
        assert camera.more()
        camera.close()
    assert camera.numbers == sorted(set(camera.numbers))  # nothing twice
    assert set(reasons(events)) <= {"closed", "stale"}


def test_a_playlist_cannot_read_our_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(clips.transport_stream(30))
    (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n")
    with MjpegServer(tmp_path / "served") as server, pytest.raises(SourceUnavailableError):
        server.folder = tmp_path
        open_source(server.url.replace("live", "a.m3u8"), LiveOptions(wait=False))


def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(SourceUnavailableError, match="no answer in time"):
            open_source(f"http://127.0.0.1:{silent.getsockname()[1]}/x", LiveOptions(open_s=0.5, wait=False))
        assert time.monotonic() - began < 2
