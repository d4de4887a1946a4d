"""A preview of results made by hand, and a client that speaks plain HTTP to it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.preview import Preview, Serving
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import Detections, Frame

NAMES = ("nut", 'bo"lt')
LIVE = SourceState("LIVE", 1000.0)


def result(
    index: int = 0, classes: tuple[int, ...] = (0, 1, 1), wh: tuple[int, int] = (64, 48), source: int = 0
) -> FrameResult:
    n = len(classes)
    boxes = np.array([[4, 4, 30, 30]] * n, np.float32).reshape(n, 4)
    scores = np.linspace(0.9, 0.3, n, dtype=np.float32)
    masks = np.full((n, 8, 8), 0.75, np.float32)
    found = Detections(boxes, scores, np.array(classes, np.int32), masks, wh, NAMES)
    image = np.full((wh[1], wh[0], 3), index % 256, np.uint8)
    frame = Frame(image, index, index / 25, "", time.monotonic() - 0.02, time.time(), "cam")
    return FrameResult(frame, found, LIVE, {"letterbox": 1.0, "network": 5.0}, source_number=source)


class FakeSource:
    """A source that a test writes the state of."""

    fps, frame_count, corrupt, live, dropped, cut_short = 25.0, None, 2, True, 3, ""

    def __init__(self, name: str = "cam\n") -> None:
        self.name, self.now = name, LIVE

    def state(self) -> SourceState:
        return self.now


class Served:
    """A preview that runs, and how to ask it."""

    def __init__(self, token: str = "", sources: int = 1) -> None:
        self.controls, self.events, self.records = Controls(), Events(), True
        self.sources = [
            FakeSource("cam\n" + (f" ({number})" if number > 1 else "")) for number in range(1, sources + 1)
        ]
        self.source = self.sources[0]
        self.controls.class_names = NAMES
        self.preview = Preview(Serving("127.0.0.1", 0, token), self.controls, self.events, sources)
        self.port = int(self.preview.url.rpartition(":")[2].strip("/"))
        self.preview.begin(self.sources, lambda number: 3 + number, "by a test", lambda: self.records)

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        return json.loads(self.ask(path)[2])

    def change(self, wishes: object) -> tuple[int, Any]:
        status, _, body = self.ask("/api/controls", "POST", json.dumps(wishes), {"Content-Type": "application/json"})
        return status, json.loads(body)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.preview.end()


@pytest.fixture
def served_with() -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(token: str = "", sources: int = 1) -> Served:
        made.append(Served(token, sources))
        return made[-1]

    yield make
    for one in made:
        one.preview.end()
