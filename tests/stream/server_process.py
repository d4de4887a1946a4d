"""The misbehaving camera in a process of its own, so that what is measured is the client alone."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.process

from .rtsp_server import RtspServer


class RemoteServer:
    """`RtspServer`, told what to do over a pipe; each call returns when it is done."""

    def __init__(self, fps: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process: multiprocessing.process.BaseProcess = context.Process(
            target=_serve, args=(other, fps), daemon=True
        )
        self._process.start()
        self.url: str = self._pipe.recv()

    def start(self) -> None:
        self._tell("start")

    def stop(self, reset: bool) -> None:
        self._tell("stop", reset)

    def drop(self) -> None:
        self._tell("drop")

    def set_mode(self, mode: str) -> None:
        self._tell("mode", mode)

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _tell(self, *words: object) -> None:
        self._pipe.send(words)
        self._pipe.recv()


def _serve(pipe: multiprocessing.connection.Connection, fps: float) -> None:
    server = RtspServer(fps)
    server.start()
    pipe.send(server.url)
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return
        if command == "mode":
            server.mode = arguments[0]
        else:
            getattr(server, command)(*arguments)
        pipe.send(None)
