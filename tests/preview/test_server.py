"""The server: what it answers, whom it refuses, and that nobody can keep the pipeline waiting."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from aiohttp import web

from tests.stream.conftest import until
from trt_blendmask.errors import OutputError
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.preview import Preview, Serving, guard
from trt_blendmask.runtime.sources import SourceState

from .conftest import Served, result


@contextmanager
def connected(served: Served, request: str) -> Iterator[socket.socket]:
    """A client of the lowest level, which sends `request`."""
    with socket.create_connection(("127.0.0.1", served.port), 10) as client:
        client.sendall(request.replace("\n", "\r\n").encode())
        yield client


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\nHost: localhost\n\n"


def ended(client: socket.socket, seconds: float = 5.0) -> bool:
    """Whether the server hangs up in time, whatever it says before."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_page_and_its_files(served: Served) -> None:
    status, headers, body = served.ask("/")
    assert status == 200
    assert b"page.js" in body
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    for name in ("page.js", "page.css", "icon.svg"):
        assert served.ask(f"/{name}")[0] == 200
    for path in ("/index.html", "/../__init__.py", "/%2e%2e/site.py", "/page/page.js", "/.git", "//etc/passwd"):
        assert served.ask(path)[0] == 404
    assert served.ask("/", "HEAD")[2] == b""


def test_before_the_first_frame(served: Served) -> None:
    assert served.ask("/snapshot.jpg")[0] == 503
    assert served.ask("/api/detections")[0] == 503
    assert served.ask("/health")[0] == 503
    assert served.json("/api/state")["frames"] == 0


def test_numbers_and_pictures_are_those_of_the_newest_result(served: Served) -> None:
    for i in range(3):
        served.preview.write(result(i * 60))
    state = served.json("/api/state")
    assert state["frames"] == 3
    assert state["sources"][0]["dropped"] == 3
    assert state["how"] == "by a test"
    assert served.json("/api/detections")["frame"] == 120
    assert "segmentation" not in served.json("/api/detections")["detections"][0]
    assert "counts" in served.json("/api/detections?masks=rle")["detections"][0]["segmentation"]
    assert served.ask("/api/detections?masks=all")[0] == 400
    _, headers, body = served.ask("/snapshot.jpg?download")
    assert "attachment" in headers["Content-Disposition"]
    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (48, 64, 3)
    assert picture[40, 60].tolist() == pytest.approx([120] * 3, abs=4)
    assert b"trt_blendmask_frames_total" in served.ask("/metrics")[2]


def test_a_name_that_is_no_text(served: Served) -> None:
    served.source.name = "belt\udcff.mp4"  # type: ignore[misc]
    for path in ("/metrics", "/api/state", "/health"):
        assert served.ask(path)[0] < 500 or path == "/health"
    with connected(served, get("/events")) as client:
        assert any("udcff" in line for line in client.makefile("r"))


def test_health_follows_the_source(served: Served) -> None:
    served.preview.write(result())
    assert served.ask("/health")[0] == 200
    served.source.now = SourceState("NO SIGNAL", 1234.5, "connection refused")
    status, _, body = served.ask("/health")
    assert status == 503
    assert json.loads(body)["status"] == "NO SIGNAL"
    assert json.loads(body)["since_wall_s"] == 1234.5
    served.source.now = SourceState("LIVE", 1300.0, "", 1)
    served.controls.change({"paused": True})
    assert json.loads(served.ask("/health")[2])["status"] == "PAUSED"


def test_controls(served: Served) -> None:
    status, settings = served.change({"score": 0.7, "classes": ["nut"], "opacity": 0.25})
    assert (status, settings["score"], settings["classes"]) == (200, 0.7, ["nut"])
    assert served.controls.settings.opacity == 0.25
    for wishes in ({"score": 2}, {"what": 1}, [1], None, {"classes": ["x"]}):
        assert served.change(wishes)[0] == 400
    assert served.ask("/api/controls", "POST", "{", {"Content-Type": "application/json"})[0] == 400
    assert served.ask("/api/controls", "POST", "[" * 8000, {"Content-Type": "application/json"})[0] == 400
    assert served.ask("/api/controls", "POST", "x" * 9000, {"Content-Type": "application/json"})[0] == 413
    assert served.ask("/api/controls", "GET")[0] == 405
    assert served.controls.settings.score == 0.7


def test_the_page_does_not_record_where_nothing_works_that_could(served: Served) -> None:
    assert served.json("/api/state")["can_record"] is True
    served.records = False
    assert served.json("/api/state")["can_record"] is False


def test_other_sites_are_refused(served: Served) -> None:
    form = {"Content-Type": "text/plain"}
    assert served.ask("/api/controls", "POST", '{"paused": true}', form)[0] == 415
    kind = {"Content-Type": "application/json"}
    assert served.ask("/api/controls", "POST", '{"paused": true}', kind | {"Origin": "http://evil.example"})[0] == 403
    own = {"Origin": f"http://127.0.0.1:{served.port}"}
    assert served.ask("/api/controls", "POST", '{"opacity": 0.1}', kind | own)[0] == 200
    assert served.ask("/snapshot.jpg", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert served.ask("/", headers={"Host": "evil.example"})[0] == 421
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "POST"):
        assert served.ask("/", method)[0] == 405
    assert not served.controls.settings.paused


def test_token(served_with: Callable[[str], Served]) -> None:
    served = served_with("correct-horse")
    for path in ("/", "/metrics", "/health", "/stream.mjpg", "/events", "/snapshot.jpg", "/nowhere", "/page.js"):
        assert served.ask(path)[0] == 401
        assert served.ask(path, headers={"Authorization": "Bearer wrong-horse"})[0] == 401
    assert served.ask("/?token=wrong")[0] == 401
    assert served.ask("/page.js", headers={"Authorization": "Bearer correct-horse"})[0] == 200
    assert served.ask("/page.js?token=correct-horse")[0] == 200
    status, headers, _ = served.ask("/?token=correct-horse")
    assert (status, headers["Location"]) == (303, "/")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.ask("/", headers={"Cookie": cookie.split(";")[0]})[0] == 200
    assert cookie.startswith(f"trt_blendmask_token_{served.port}="), "another run on this host has one of its own"
    assert all("horse" not in event.text + str(event.details) for event in served.events.history())


def test_too_many_watchers(served: Served) -> None:
    with connected(served, get("/events")) as first:
        others = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(7)]
        for other in others:
            other.sendall(get("/events").replace("\n", "\r\n").encode())
        assert first.recv(10)
        assert until(lambda: served.ask("/events")[0] == 503 if served.preview._server.site._listeners == 8 else False)
        for other in others:
            other.close()


def test_events_tell_at_once(served: Served) -> None:
    with connected(served, get("/events")) as client:
        stream = client.makefile("r")
        assert any("event: state" in stream.readline() for _ in range(50))
        began = time.monotonic()
        served.events.publish("source_lost", "cam: NO SIGNAL", {"reason": "frozen"})
        while "source_lost" not in stream.readline():
            pass
        assert time.monotonic() - began < 0.5


def test_events_of_one_moment_are_all_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_blendmask.runtime.events.time", SimpleNamespace(monotonic=lambda: 1.0, time=time.time))
    with connected(served, get("/events")) as client:
        stream = client.makefile("r")
        for kind in ("first", "second"):
            served.events.publish(kind, "Something happened.")
            assert any(kind in stream.readline() for _ in range(50))


def test_a_server_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_: web.AppRunner) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(web.AppRunner, "setup", refused)
    began = time.monotonic()
    with pytest.raises(OutputError, match="but Too many open files: try another port, --serve 0"):
        Served()
    assert time.monotonic() - began < 5
    assert not any(thread.name == "preview" for thread in threading.enumerate())


def test_a_preview_that_has_ended_hears_no_more_events(served_with: Callable[..., Served]) -> None:
    served = served_with()
    assert len(served.events._callbacks) == 1
    served.preview.end()
    assert not served.events._callbacks


def test_slow_requests_are_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "IDLE_S", 0.5)
    with connected(served, "") as silent, connected(served, "GET / HTTP/1.1\nHost: local") as slow:
        assert ended(silent)
        assert ended(slow)


def test_one_connection_too_many(served: Served) -> None:
    clients = [socket.create_connection(("127.0.0.1", served.port), 5) for _ in range(guard.MOST_CONNECTIONS)]
    try:
        time.sleep(0.2)
        with connected(served, get("/health")) as late:
            assert ended(late, 2)
    finally:
        for client in clients:
            client.close()
    assert until(lambda: _answers(served))


def _answers(served: Served) -> bool:
    try:
        return served.ask("/page.js")[0] == 200
    except OSError:
        return False


def test_large_headers(served: Served) -> None:
    assert served.ask("/", headers={f"X-{i}": "y" * 1000 for i in range(10)})[0] == 431
    assert served.ask("/" + "y" * 5000)[0] == 400
    assert served.ask("/", headers={"X": "y" * 5000})[0] == 400


def test_it_ends_at_once_whoever_is_connected(served: Served) -> None:
    with connected(served, get("/stream.mjpg")) as one, connected(served, get("/events")) as two:
        assert until(lambda: served.preview._server.site.pictures[0].watchers == 1)
        began = time.monotonic()
        served.preview.end()
        assert time.monotonic() - began < 2
        assert ended(one)
        assert ended(two)
    assert not any(thread.name == "preview" for thread in threading.enumerate())
    served.preview.write(result())  # a result that comes too late harms nobody


def test_no_connection_outlives_it(served: Served) -> None:
    """One that is accepted in the very moment of the end, either: nobody would ever close it."""
    loop = served.preview._server._loop
    loop.call_soon_threadsafe(time.sleep, 0.2)  # so that it wakes to both at once
    with connected(served, get("/events")) as client:
        served.preview.end()
        assert ended(client)


def test_an_address_that_is_taken(served: Served) -> None:
    with pytest.raises(OutputError, match="in use"):
        Preview(Serving("127.0.0.1", served.port), Controls(), Events())


def test_several_sources(served_with: Callable[..., Served]) -> None:
    served = served_with(sources=3)
    for index, source in ((10, 0), (200, 1), (20, 0)):
        served.preview.write(result(index, source=source, wh=(64 + 16 * source, 48)))
    state = served.json("/api/state")
    assert state["frames"] == 3
    assert [one["frames"] for one in state["sources"]] == [2, 1, 0]
    assert [one["dropped"] for one in state["sources"]] == [3, 4, 5]
    assert [one["name"] for one in state["sources"]] == ["cam\n", "cam\n (2)", "cam\n (3)"]
    assert served.json("/api/detections")["frame"] == served.json("/api/detections?source=1")["frame"] == 20
    assert served.json("/api/detections?source=2")["frame"] == 200
    for number, wh in ((1, (64, 48)), (2, (80, 48))):
        for more in ("", "&small", "&download"):
            _, _, body = served.ask(f"/snapshot.jpg?source={number}{more}")
            assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (wh[1], wh[0], 3)
    assert served.ask("/snapshot.jpg?source=3")[0] == 503  # no frame yet
    for wrong in ("0", "4", "-1", "x", "1.0", "", "\u0661"):
        for path in ("/snapshot.jpg", "/stream.mjpg", "/api/detections"):
            status, _, body = served.ask(f"{path}?source={quote(wrong)}")
            assert (status, json.loads(body)["error"]) == (404, "Expected source=1 to 3.")
    text = served.ask("/metrics")[2].decode()
    assert r'trt_blendmask_frames_total{source="cam\n (2)"} 1' in text
    assert len([line for line in text.splitlines() if line.startswith("# TYPE")]) == len(set(text.split("# TYPE ")[1:]))
    samples = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))


def test_health_is_that_of_the_worst_source(served_with: Callable[..., Served]) -> None:
    served = served_with(sources=2)
    served.preview.write(result(source=0))
    assert json.loads(served.ask("/health")[2])["status"] == "STARTING"
    served.preview.write(result(source=1))
    assert served.ask("/health")[0] == 200
    served.sources[1].now = SourceState("NO SIGNAL", 1234.5, "it is dark")
    status, _, body = served.ask("/health")
    assert (status, json.loads(body)["status"], json.loads(body)["reason"]) == (503, "NO SIGNAL", "it is dark")
    assert [one["status"] for one in json.loads(body)["sources"]] == ["LIVE", "NO SIGNAL"]
    served.sources[1].now = SourceState("ENDED", 1300.0)
    assert served.ask("/health")[0] == 200
