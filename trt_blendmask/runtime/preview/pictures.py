"""The live picture: the newest frame as JPEG, made once for all who watch, and only when one of them waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2

from trt_blendmask.runtime.preview.state import PreviewState
from trt_blendmask.runtime.result import FrameResult

WIDEST = 1280  # pixels of the live picture; the snapshot has the frame's own size
LEAST_PAUSE_S = 1 / 30
QUALITY, SNAPSHOT_QUALITY = 80, 95
SMALL, SMALL_QUALITY = 320, 70  # of each source beside the live picture of one


def encode(result: FrameResult, widest: int | None = None, quality: int = SNAPSHOT_QUALITY) -> bytes:
    """The frame with its overlay as JPEG, at most `widest` pixels wide."""
    picture = result.picture
    height, width = picture.shape[:2]
    if widest is not None and width > widest:
        size = widest, max(1, round(height * widest / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


class Pictures:
    """The newest JPEG for any number of clients. All but `news` belongs to the server's loop.

    Attributes:
        watchers: how many clients are served now.
    """

    def __init__(self, state: PreviewState) -> None:
        self.watchers = self._waiting = 0
        self._state, self._loop = state, asyncio.get_running_loop()
        self._news, self._ready = asyncio.Event(), asyncio.Event()
        self._newest = (0, b"")

    def news(self) -> None:
        """A new result is there; from any thread, and never waits."""
        if self._waiting:  # who does not read does not wait, either, and costs nothing
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._news.set)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """As long as a client looks."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1

    async def after(self, number: int) -> tuple[int, bytes]:
        """The newest picture, once it is newer than `number`, and its own number."""
        self._waiting += 1
        self._news.set()  # of results that came while nobody waited
        try:
            while self._newest[0] <= number:
                await self._ready.wait()
        finally:
            self._waiting -= 1
        return self._newest

    async def work(self) -> None:
        """Encode what is newest, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            number, result = self._state.latest()
            if result is None or number == self._newest[0] or not self._waiting:
                continue
            pause = asyncio.create_task(asyncio.sleep(LEAST_PAUSE_S))
            self._newest = number, await asyncio.to_thread(encode, result, WIDEST, QUALITY)
            ready, self._ready = self._ready, asyncio.Event()
            ready.set()
            await pause
