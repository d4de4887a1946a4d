"""Who gets in: requests for this host, by people who know the token, small and soon. Everybody else is sent away."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from trt_blendmask.runtime.preview.address import Serving

MOST_CONNECTIONS = 64
LARGEST_REQUEST = 8192  # bytes of all header lines together, and of a body
IDLE_S, STUCK_S = 10.0, 5.0  # without a request, and without reading a byte of the answer
LOOK_S = 0.5  # how often connections are looked at
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def refuse(status: int, why: str) -> web.Response:
    """An answer of one sentence."""
    return web.json_response({"error": why}, status=status)


class Guard:
    """Stands before every request of one server."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._busy: set[asyncio.BaseTransport] = set()
        self._asked: Counter[asyncio.BaseTransport] = Counter()

    async def prepare(self, _: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that every answer has."""
        response.headers.update(HEADERS)
        response.headers["Server"] = "trt-blendmask"

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            if (transport := request.transport) is None:
                return refuse(400, "The connection is gone.")
            self._busy.add(transport)
            self._asked[transport] += 1
            try:
                objection = self._objection(request)  # older aiohttp: an answer is a mapping, and false while empty
                return objection if objection is not None else await handler(request)
            except web.HTTPException as error:
                return refuse(error.status, error.reason)
            finally:
                self._busy.discard(transport)

        return check

    async def watch(self, connections: Callable[[], list[web.RequestHandler]]) -> None:
        """End connections that ask for nothing, or that do not read what they asked for, until cancelled."""
        since: dict[asyncio.Transport, tuple[object, float]] = {}
        while True:
            now, before, since = time.monotonic(), since, {}
            for connection in connections():
                transport = connection.transport
                if transport is None or transport.is_closing():
                    continue
                waiting = transport.get_write_buffer_size()
                state = waiting, transport in self._busy, self._asked[transport]
                old = before.get(transport)
                begun = old[1] if old and old[0] == state else now
                since[transport] = state, begun
                longest = STUCK_S if waiting else None if transport in self._busy else IDLE_S
                if longest is not None and now - begun > longest:
                    transport.abort()
            self._asked = Counter({transport: self._asked[transport] for transport in since})
            await asyncio.sleep(LOOK_S)

    def _objection(self, request: web.Request) -> web.StreamResponse | None:
        if sum(len(name) + len(value) for name, value in request.raw_headers) > LARGEST_REQUEST:
            return refuse(431, f"Expected at most {LARGEST_REQUEST} bytes of headers.")
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not self._serving.answers_to(hosts[0]):
            return refuse(421, "This page answers to addresses and to this machine's own name only.")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != hosts[0]:
            return refuse(403, "Only this page itself may ask.")
        if (
            request.headers.get("Sec-Fetch-Site") == "cross-site"
            and request.headers.get("Sec-Fetch-Mode") != "navigate"
        ):
            return refuse(403, "Only this page itself may ask.")
        return self._ask_token(request)

    def _ask_token(self, request: web.Request) -> web.StreamResponse | None:
        token = self._serving.token
        if not token:
            return None
        cookie = f"trt_blendmask_token_{request.url.port}"  # browsers give a host's cookies to all its ports
        kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if (kind == "Bearer" and _same(bearer, token)) or _same(request.cookies.get(cookie, ""), token):
            return None
        if not _same(request.query.get("token", ""), token):
            answer = refuse(401, "Expected the token: open /?token=..., or send the header Authorization: Bearer ...")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        if request.path != "/" or request.method != "GET":
            return None
        page = web.Response(status=303, headers={"Location": "/"})  # so that the token leaves the address bar
        page.set_cookie(cookie, token, httponly=True, samesite="Strict", max_age=30 * 86400)
        return page


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
