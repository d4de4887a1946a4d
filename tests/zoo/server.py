"""A server on this machine that does what servers do to downloads."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_blendmask.errors import SourceUnavailableError
from trt_blendmask.zoo.fetch import pull

NAME = "R_50_3x"
PATH = f"/ZjuCv/AdelaiDet/resolve/main/{NAME}.pth"


def checkpoint(seed: int = 0, count: int = 200_000) -> bytes:
    """A .safetensors of random numbers."""
    numbers = np.random.default_rng(seed).standard_normal(count, np.float32).tobytes()
    header = {"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, len(numbers)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


class Server:
    """Answers from `answers`, one per request, the last one again and again; notes what was asked."""

    def __init__(self) -> None:
        self.content = checkpoint()
        self.etag = '"one"'
        self.answers: list[Callable[[Any], None]] = [whole]
        self.asked: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                self.owner = server
                self.close_connection = True
                with suppress(BrokenPipeError, ConnectionResetError):  # a client that was interrupted on purpose
                    answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def ranges(self) -> list[str]:
        return [headers.get("range", "") for _, headers in self.asked]


def send(
    handler: Any, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
) -> None:
    handler.send_response(status)
    for key, value in (headers or {}).items():
        handler.send_header(key, value)
    if length != -1:
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler: Any) -> None:
    """All that is asked for, as RFC 9110 says: a range only if the file is still the same."""
    part(handler, None)


def part(handler: Any, most: int | None) -> None:
    """As `whole`, but the connection breaks after `most` bytes."""
    owner = handler.owner
    asked = handler.headers.get("Range", "")
    same = handler.headers.get("If-Range", owner.etag) == owner.etag
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and same else 0
    if start >= len(owner.content):
        send(handler, 416, b"", {"Content-Range": f"bytes */{len(owner.content)}"})
        return
    body = owner.content[start:]
    headers = {"ETag": owner.etag}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(owner.content) - 1}/{len(owner.content)}"
    send(handler, 206 if start else 200, body[:most], headers, len(body))


def broken(most: int) -> Callable[[Any], None]:
    return lambda handler: part(handler, most)


def status(code: int, body: bytes = b"no") -> Callable[[Any], None]:
    return lambda handler: send(handler, code, body)


def redirect(target: str, headers: dict[str, str] | None = None) -> Callable[[Any], None]:
    return lambda handler: send(handler, 302, b"", {"Location": target, **(headers or {})})


def give_up(server: Server, tmp_path: Path, match: str = "bytes") -> str:
    with pytest.raises(SourceUnavailableError, match=match) as caught:
        pull(NAME, tmp_path, server.url)
    assert not (tmp_path / f"{NAME}.pth").exists()
    assert not (tmp_path / f"{NAME}.pth.json").exists()
    return str(caught.value)
