"""The live picture: made once for all who watch, and only for them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from tests.stream.conftest import until
from trt_blendmask.runtime.preview import guard
from trt_blendmask.runtime.preview import pictures as pictures_module
from trt_blendmask.runtime.result import FrameResult

from .conftest import Served, result
from .test_server import connected, get


def parts(client: socket.socket, count: int) -> list[bytes]:
    """JPEGs of a motion JPEG, as they come."""
    stream, found = client.makefile("rb"), []
    while len(found) < count:
        line = stream.readline()
        if line.lower().startswith(b"content-length"):
            stream.readline()
            found.append(stream.read(int(line.split(b":")[1])))
    return found


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each picture that was made for watchers, the number of its source."""
    encode, made = pictures_module.encode, []

    def noting(result: FrameResult, *words: Any) -> bytes:
        made.append(result.source_number)
        return encode(result, *words)

    monkeypatch.setattr(pictures_module, "encode", noting)
    return made


def test_pictures_are_made_once_and_only_for_watchers(served: Served, encoded: list[int]) -> None:
    pictures = served.preview._server.site.pictures[0]
    served.preview.write(result(1))
    time.sleep(0.1)
    assert not encoded
    with connected(served, get("/stream.mjpg")) as one, connected(served, get("/stream.mjpg")) as two:
        assert until(lambda: pictures.watchers == 2)
        seen: list[list[bytes]] = []
        readers = [threading.Thread(target=lambda c=c: seen.append(parts(c, 3))) for c in (one, two)]
        for reader in readers:
            reader.start()
        written, end_s = 0, time.monotonic() + 20
        while any(reader.is_alive() for reader in readers) and time.monotonic() < end_s:  # a busy one leaves some out
            written += 1
            served.preview.write(result(min(60 * written, 180)))
            time.sleep(0.15)
        assert len(encoded) <= written + 1
        assert [len(jpegs) for jpegs in seen] == [3, 3]
        last = [cv2.imdecode(np.frombuffer(jpegs[-1], np.uint8), cv2.IMREAD_COLOR) for jpegs in seen]
        assert all(picture[40, 60, 0] >= 110 for picture in last)
    assert until(lambda: pictures.watchers == 0)


def test_who_never_reads_is_cut_off_and_nobody_waits(
    served: Served, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "STUCK_S", 1.5)
    pictures = served.preview._server.site.pictures[0]
    noise = result(0, wh=(640, 480))
    noise.frame.image[:] = np.random.default_rng(1).integers(0, 256, noise.frame.image.shape, dtype=np.uint8)
    with connected(served, get("/stream.mjpg")) as dead:
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert until(lambda: pictures.watchers == 1)
        worst, end_s = 0.0, time.monotonic() + 10
        while pictures.watchers and time.monotonic() < end_s:
            began = time.monotonic()
            served.preview.write(noise)
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.01)
        assert pictures.watchers == 0
        assert worst < 1.0  # who waited for the client would wait until it is cut off
        assert len(encoded) <= 4  # who does not take a picture gets no further ones made
    assert served.ask("/health")[0] == 200


def test_each_source_has_a_picture_of_its_own(served_with: Callable[..., Served], encoded: list[int]) -> None:
    served = served_with(sources=2)
    with connected(served, get("/stream.mjpg?source=1")), connected(served, get("/stream.mjpg?source=2")) as two:
        pictures = served.preview._server.site.pictures
        assert until(lambda: [one.watchers for one in pictures] == [1, 1])
        served.preview.write(result(250, source=1))
        assert until(lambda: encoded == [1])
        got = b""
        while b"Content-Type: image/jpeg" not in got and (more := two.recv(65536)):
            got += more
        assert b"Content-Type: image/jpeg" in got
        assert served.json("/api/state")["watchers"] == 2
