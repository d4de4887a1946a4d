"""What the preview answers: the page, the picture, and the numbers for people and programs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from trt_blendmask import __version__
from trt_blendmask.errors import UsageError
from trt_blendmask.runtime.board import Board, read_board
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.preview.guard import LARGEST_REQUEST, refuse
from trt_blendmask.runtime.preview.metrics import CONTENT_TYPE, metrics
from trt_blendmask.runtime.preview.pictures import SMALL, SMALL_QUALITY, Pictures, encode
from trt_blendmask.runtime.preview.state import PreviewState
from trt_blendmask.runtime.recording.lines import MASKS, line_of

MOST_WATCHERS = 8  # of the picture, and as many of the events
STALLED_S = 10.0  # without a result while the source is live
_PAGE = Path(__file__).with_name("page")
_PAGE_TYPES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_TICK_S, _BOARD_S, _BODY_S = 1.0, 2.0, 5.0
_TOLD = 20  # past events that a new page gets
_BOUNDARY = "frame"
_WELL = ("PAUSED", "LIVE", "ENDED")
_WORST_FIRST = ("NO SIGNAL", "STALLED", "STARTING", *_WELL)


@dataclass
class About:
    """What the page shows of the run. Attributes: how: what runs the network, in words; can_record: whether there is a
    video that works, to be switched on and off."""

    how: str = ""
    can_record: Callable[[], bool] = bool


class Site:
    """The routes. Belongs to the server's loop but for `poke`.

    Attributes:
        pictures: of each source. unsubscribe: ends listening to the events.
    """

    def __init__(self, states: Sequence[PreviewState], controls: Controls, events: Events, about: About) -> None:
        self._states, self._controls, self._events, self._about = states, controls, events, about
        self.pictures = [Pictures(state) for state in states]
        self._loop = asyncio.get_running_loop()
        self._poked, self._listeners = asyncio.Event(), 0
        self._board, self._board_s = Board(), -_BOARD_S
        self.unsubscribe = events.subscribe(lambda _: self.poke())

    def routes(self) -> list[web.RouteDef]:
        page = [web.get(f"/{name}", self._file) for name in _PAGE_TYPES]
        return [
            *page,
            web.get("/", self._index),
            web.get("/stream.mjpg", self._stream, allow_head=False),
            web.get("/snapshot.jpg", self._snapshot),
            web.get("/events", self._listen, allow_head=False),
            web.get("/health", self._health),
            web.get("/metrics", self._metrics),
            web.get("/api/state", self._summary),
            web.get("/api/detections", self._detections),
            web.post("/api/controls", self._change),
        ]

    def poke(self) -> None:
        """Something happened that pages should hear of at once; from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        poked, self._poked = self._poked, asyncio.Event()
        poked.set()

    @property
    def _watchers(self) -> int:
        return sum(pictures.watchers for pictures in self.pictures)

    def _number(self, request: web.Request) -> int:
        """Which source is asked for, from 0 on: ?source=1 is the first."""
        wanted, most = request.query.get("source", "1"), len(self._states)
        if wanted in map(str, range(1, most + 1)):
            return int(wanted) - 1
        raise web.HTTPNotFound(reason=f"Expected source=1 to {most}.")

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(body=(_PAGE / "index.html").read_bytes(), content_type="text/html", charset="utf-8")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/")  # one of ours, or the route would not lead here
        return web.Response(body=(_PAGE / name).read_bytes(), content_type=_PAGE_TYPES[name], charset="utf-8")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Motion JPEG: each client gets the newest picture whenever it has taken the one before."""
        pictures = self.pictures[self._number(request)]
        if self._watchers >= MOST_WATCHERS:
            return refuse(503, f"{MOST_WATCHERS} others are watching: close one of them.")
        response = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}"})
        boundary = f"--{_BOUNDARY}\r\n".encode()
        with pictures.watching(), suppress(ConnectionError):
            await self._begin(request, response)
            await response.write(boundary)
            number = 0
            while True:
                number, jpeg = await pictures.after(number)
                head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                # With the next boundary at once: browsers show a part when they see its end.
                await response.write(head + jpeg + b"\r\n" + boundary)
        return response

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: "event" when something happens, "state" then and every second."""
        if self._listeners >= MOST_WATCHERS:
            return refuse(503, f"{MOST_WATCHERS} others are listening: close one of them.")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._listeners += 1
        try:
            with suppress(ConnectionError):
                await self._begin(request, response)
                past = self._events.history()
                told = past[-_TOLD - 1].number if len(past) > _TOLD else 0
                while True:
                    poked = self._poked
                    new = [event for event in self._events.history() if event.number > told]
                    told = new[-1].number if new else told
                    text = "".join(_sse("event", _plain(event)) for event in new)
                    await response.write((text + _sse("state", await self._all())).encode())
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(poked.wait(), _TICK_S)
        finally:
            self._listeners -= 1
        return response

    async def _begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Start an answer without end, whose writes wait until the client has taken them."""
        await response.prepare(request)
        if isinstance(request.transport, asyncio.Transport):
            request.transport.set_write_buffer_limits(high=0)

    async def _snapshot(self, request: web.Request) -> web.Response:
        _, result = self._states[self._number(request)].latest()
        if result is None:
            return refuse(503, "There is no frame yet.")
        if "small" in request.query:
            jpeg = await asyncio.to_thread(encode, result, SMALL, SMALL_QUALITY)
            return web.Response(body=jpeg, content_type="image/jpeg")
        headers = {}
        if "download" in request.query:
            name = time.strftime("%Y%m%dT%H%M%S", time.localtime(result.frame.wall_s or time.time()))
            headers["Content-Disposition"] = f'attachment; filename="snapshot-{name}.jpg"'
        return web.Response(body=await asyncio.to_thread(encode, result), content_type="image/jpeg", headers=headers)

    async def _detections(self, request: web.Request) -> web.Response:
        """The newest frame as a line of `run --json`; ?masks=rle, polygons or none (default)."""
        masks = request.query.get("masks", "none")
        if masks not in MASKS:
            return refuse(400, f"Expected masks={', '.join(MASKS)}.")
        _, result = self._states[self._number(request)].latest()
        if result is None:
            return refuse(503, "There is no frame yet.")
        return web.json_response(await asyncio.to_thread(line_of, result, masks))

    async def _health(self, _: web.Request) -> web.Response:
        """How the run is, by the source that is worst, and each of several."""
        known = [self._health_of(state) for state in self._states]
        worst = min(known, key=lambda one: _WORST_FIRST.index(one["status"]))
        body = worst if len(known) == 1 else worst | {"sources": known}
        return web.json_response(body, status=200 if worst["status"] in _WELL else 503)

    def _health_of(self, state: PreviewState) -> dict[str, Any]:
        source, age_s = state.source(), state.age_s()
        status = source.kind
        if status == "LIVE" and self._controls.settings.paused:
            status = "PAUSED"
        elif status == "LIVE" and (age_s is None or age_s > STALLED_S):
            status = "STALLED" if age_s is not None else "STARTING"
        return {
            "source": state.source_numbers()["name"],
            "status": status,
            "reason": source.reason,
            "since_wall_s": source.since_wall_s,
            "last_result_age_s": None if age_s is None else round(age_s, 3),
        }

    async def _metrics(self, _: web.Request) -> web.Response:
        text = metrics(self._states, self._events.counters(), await self._read_board(), self._watchers)
        return web.Response(body=text.encode("utf-8", "backslashreplace"), headers={"Content-Type": CONTENT_TYPE})

    async def _summary(self, _: web.Request) -> web.Response:
        return web.json_response(await self._all())

    async def _change(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":  # a foreign page cannot send that without asking first
            return refuse(415, "Expected JSON.")
        if request.content_length is None or request.content_length > LARGEST_REQUEST:
            return refuse(413, f"Expected at most {LARGEST_REQUEST} bytes.")
        try:
            wishes = json.loads(await asyncio.wait_for(request.read(), _BODY_S))
            if not isinstance(wishes, dict):
                return refuse(400, "Expected a JSON object.")
            settings = self._controls.change(wishes)
        except asyncio.TimeoutError:
            return refuse(408, "The request did not come to its end.")
        except (ValueError, RecursionError):
            return refuse(400, "Expected JSON.")
        except UsageError as error:
            return refuse(400, str(error))
        self.poke()
        return web.json_response(asdict(settings))

    async def _all(self) -> dict[str, Any]:
        board = await self._read_board()
        sources = [state.summary() for state in self._states]
        return {
            "sources": sources,
            "frames": sum(source["frames"] for source in sources),
            "now_wall_s": time.time(),
            "settings": asdict(self._controls.settings),
            "class_names": self._controls.class_names,
            "board": asdict(board),
            "watchers": self._watchers,
            "version": __version__,
            "how": self._about.how,
            "can_record": self._about.can_record(),
        }

    async def _read_board(self) -> Board:
        now = time.monotonic()
        if now - self._board_s >= _BOARD_S:
            self._board_s = now
            self._board = await asyncio.to_thread(read_board)
        return self._board


def _plain(event: Event) -> dict[str, Any]:
    return {"kind": event.kind, "text": event.text, "wall_s": event.wall_s, "details": event.details}


def _sse(name: str, values: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(values)}\n\n"
