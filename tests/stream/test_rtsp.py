"""RTSP against a server that misbehaves; the long counts are those of `outages.py`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from trt_blendmask.errors import SourceUnavailableError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import LiveOptions, Source, open_source

from . import frame_code
from .conftest import until
from .rtsp_server import RtspServer

pytestmark = pytest.mark.usefixtures("fast", "no_threads_left")
QUICK = LiveOptions(stale_s=0.6, open_s=1.5)


class Watcher:
    """Takes the frames of a source in a thread, as a pipeline would."""

    def __init__(self, source: Source) -> None:
        self.source, self.numbers, self.ages, self.sizes = source, [], [], []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for frame in self.source:
            if (found := frame_code.read(frame.image)) is not None:
                self.numbers.append(found[0])
                self.ages.append(((frame_code.now_ms() - found[1]) & 0xFFFFFFFF) / 1000)
                self.sizes.append(frame.frame_wh)

    def more(self, seconds: float = 10) -> bool:
        """Whether another frame comes."""
        seen = len(self.numbers)
        return until(lambda: len(self.numbers) > seen + 2, seconds)

    def close(self) -> float:
        began = time.monotonic()
        self.source.close()
        self._thread.join(3)
        assert not self._thread.is_alive()
        return time.monotonic() - began


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with RtspServer() as running:
        yield running


def watched(server: RtspServer, events: Events | None = None, query: str = "") -> Watcher:
    return Watcher(open_source(server.url + query, QUICK, events))


def reasons(events: Events) -> list[str]:
    return [e.details["reason"] for e in events.history() if e.kind == "source_lost"]


@pytest.mark.parametrize("query", ["", "?transport=udp"])
def test_frames_are_fresh_and_in_order(server: RtspServer, query: str) -> None:
    camera = watched(server, query=query)
    assert until(lambda: len(camera.numbers) > 25)
    assert camera.numbers == sorted(set(camera.numbers))
    assert min(camera.ages[-10:]) < 0.5
    assert camera.source.state().kind == "LIVE"
    assert camera.source.fps == 25
    assert camera.close() < 2


def test_outages_of_every_kind_are_survived(server: RtspServer) -> None:
    events = Events()
    camera = watched(server, events)
    assert camera.more()
    for reset in (False, True):
        server.stop(reset)
        assert until(lambda: camera.source.state().kind == "NO SIGNAL", 1)
        server.start()
        assert camera.more(5)
    for mode in ("freeze", "silent", "garbage"):
        server.mode = mode
        assert until(lambda: camera.source.state().kind == "NO SIGNAL", 3)
        server.mode = "ok"
        assert camera.more(5)
    server.frame_wh = (480, 272)
    assert until(lambda: camera.sizes[-1] == (480, 272))
    assert reasons(events)[2:4] == ["stale"] * 2
    assert [e.details["to_wh"] for e in events.history() if e.kind == "format_changed"] == [[480, 272]]
    assert camera.source.state().reconnects == 5
    assert camera.close() < 2


@pytest.mark.parametrize("mode", ["freeze", "silent"])
def test_close_while_the_server_says_nothing(server: RtspServer, mode: str) -> None:
    server.mode = mode
    camera = watched(server)
    time.sleep(0.3)
    assert camera.close() < 2


@pytest.mark.parametrize(("status", "words"), [(401, "password"), (404, "404"), (500, "answered with an error")])
def test_refusals_are_named(server: RtspServer, status: int, words: str) -> None:
    server.status = status
    with pytest.raises(SourceUnavailableError, match=words):
        open_source(server.url, LiveOptions(wait=False))


def test_a_wrong_password_is_asked_rarely_and_a_right_one_works(server: RtspServer) -> None:
    server.status = 401
    camera = watched(server)
    assert until(lambda: "password" in camera.source.state().reason)
    asked = server.requests
    time.sleep(0.5)
    assert server.requests == asked
    camera.close()
    server.status, server.user = 200, ("name", "word")
    with_user = Watcher(open_source(server.url.replace("//", "//name:word@"), QUICK))
    assert with_user.more()
    with_user.close()


def test_a_camera_that_is_not_there_yet(server: RtspServer) -> None:
    server.stop()
    camera = watched(server)
    assert until(lambda: "refused" in camera.source.state().reason)
    server.start()
    assert camera.more(5)
    camera.close()


def test_a_slow_reader_sees_the_newest(server: RtspServer) -> None:
    source = open_source(server.url, QUICK)
    ages = []
    for frame in itertools.islice(source, 6):
        ages.append(frame_code.age_s(frame.image) or 0.0)
        time.sleep(0.3)
    source.close()
    assert max(ages[2:]) < 0.6  # reading every frame it would be 1.5 s behind by now
    assert source.dropped > 12
