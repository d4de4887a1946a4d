"""The preview's server: a thread with a loop of its own, so that the pipeline never waits for a browser."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from aiohttp import web

from trt_blendmask.errors import OutputError, first_line
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.preview.address import Serving
from trt_blendmask.runtime.preview.guard import LARGEST_REQUEST, MOST_CONNECTIONS, Guard
from trt_blendmask.runtime.preview.site import About, Site
from trt_blendmask.runtime.preview.state import PreviewState

_SEND_BUFFER = 64 << 10  # bytes in the kernel per client: what a slow one sees is at most so much behind
_CLOSE_S = 2.0
_NO_FILES_S = 0.5  # until the next try to accept when the process has no file descriptor left
_LOG = logging.getLogger("trt_blendmask.preview")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False  # what strangers send is no news


class Server:
    """Serves from its making until `close`.

    Attributes:
        url: of the page.
        site: the routes, and the pictures.
    """

    def __init__(
        self, serving: Serving, states: Sequence[PreviewState], controls: Controls, events: Events, about: About
    ) -> None:
        """Begin to serve.

        Raises:
            OutputError: the address is taken, or not of this machine, or the process has no file descriptor left.
        """
        self._socket = _listen(serving)
        self.port: int = self._socket.getsockname()[1]
        self.url = serving.url(self.port)
        self._guard = Guard(serving)
        self._parts = states, controls, events, about
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="preview", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._socket.close()
            raise _failed(serving, self._error)

    def close(self) -> None:
        """End all connections; returns within two seconds."""
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_CLOSE_S)
        self.site.unsubscribe()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._ready.is_set():
                raise
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self.site = Site(*self._parts)
        app = web.Application(middlewares=[self._guard.middleware], client_max_size=LARGEST_REQUEST)
        app.on_response_prepare.append(self._guard.prepare)
        app.add_routes(self.site.routes())
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_LOG,
            handler_cancellation=True,
            shutdown_timeout=0.2,
            keepalive_timeout=30.0,
            lingering_time=1.0,
            auto_decompress=False,  # no bombs
            max_line_size=LARGEST_REQUEST // 2,
            max_field_size=LARGEST_REQUEST // 2,
        )
        await runner.setup()
        server = runner.server
        assert server is not None

        tasks = [
            *(asyncio.create_task(pictures.work()) for pictures in self.site.pictures),
            asyncio.create_task(self._guard.watch(lambda: server.connections)),
            asyncio.create_task(self._accept(server)),
        ]
        self._ready.set()
        await self._ended.wait()
        self._loop.remove_reader(self._socket)  # or asyncio accepts once more for a task that is cancelled by then
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        await runner.cleanup()

    async def _accept(self, server: web.Server) -> None:
        """Take connections, and hang up on one too many.

        asyncio's own server loses one that it accepts in the moment of its closing: open for ever, known to nobody.
        """
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._socket)
            except ConnectionError:
                continue
            except OSError:
                await asyncio.sleep(_NO_FILES_S)
                continue
            if len(server.connections) >= MOST_CONNECTIONS:
                client.close()
            else:
                await self._loop.connect_accepted_socket(server, client)


def _listen(serving: Serving) -> socket.socket:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # accepted connections inherit it
        listener.bind((serving.host, serving.port))
        listener.listen(MOST_CONNECTIONS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _failed(serving, error) from error
    return listener


def _failed(serving: Serving, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or first_line(error)
    return OutputError(
        f"Expected to serve the preview on {serving.host}:{serving.port}, but {reason}: try another port, --serve 0"
    )
