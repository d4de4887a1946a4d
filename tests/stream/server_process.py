"""The misbehaving camera in a process of its own, so that what is measured is the client alone."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.process

from .rtsp_server import RtspServer


class RemoteServer:
    """`RtspServer`, told what to do over a pipe; each call returns when it is done."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self.url = self._begin(0)

    def start(self) -> None:
        self._tell("start")

    def stop(self, reset: bool) -> None:
        self._tell("stop", reset)

    def drop(self) -> None:
        self._tell("drop")

    def set_mode(self, mode: str) -> None:
        self._tell("mode", mode)

    def set_size(self, frame_wh: tuple[int, int]) -> None:
        self._tell("size", frame_wh)

    def kill(self) -> None:
        """As kill -9 does; `begin_anew` puts another process in its place, on the same port."""
        self._process.kill()
        self._process.join()

    def begin_anew(self) -> None:
        self._begin(int(self.url.rpartition(":")[2].partition("/")[0]))

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _begin(self, port: int) -> str:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process: multiprocessing.process.BaseProcess = context.Process(
            target=_serve, args=(other, self._fps, port), daemon=True
        )
        self._process.start()
        other.close()
        url: str = self._pipe.recv()
        return url

    def _tell(self, *words: object) -> None:
        self._pipe.send(words)
        self._pipe.recv()


def _serve(pipe: multiprocessing.connection.Connection, fps: float, port: int) -> None:
    server = RtspServer(fps)
    server.port = port
    server.start()
    pipe.send(server.url)
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return
        if command == "mode":
            server.mode = arguments[0]
        elif command == "size":
            server.frame_wh = arguments[0]
        else:
            getattr(server, command)(*arguments)
        pipe.send(None)
