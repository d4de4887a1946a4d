"""Hostile requests to a preview that asks for a token: `python -m tests.preview.fuzz --requests 20000`.

A request fails the server if it brings anything but an answer below 500 (503 is one: too many watchers), if it is
answered 200 without the token, if it hangs, if the server logs an error, or if the pipeline waits for it.
"""

from __future__ import annotations

import argparse
import logging
import random
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from aiohttp.http_exceptions import HttpProcessingError

from tests.preview.conftest import Served, result
from trt_blendmask.runtime.preview import guard

AT_A_TIME = 16
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # an answer is longer
TOKEN = "correct-horse-battery"
PATHS = (
    "/", "/page.js", "/page.css", "/stream.mjpg", "/events", "/snapshot.jpg?source=%31%00", "/health", "/metrics",
    "/api/state", "/api/detections?masks=rle", "/api/controls", "/../../etc/passwd", "/%2e%2e/%00", "*", "http://evil.example/",
    "",
)  # fmt: skip
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "G\0T")
READABLE = (
    "Content-Type: application/json", "Origin: http://evil.example", "Origin: null", "Range: bytes=0-",
    "Connection: close", "Upgrade: websocket", "Connection: Upgrade", "Expect: 100-continue",
    "Cookie: trt_blendmask_token=wrong", "Accept-Encoding: gzip", "Content-Encoding: gzip",
    "Authorization: Bearer wrong", "Authorization: Bearer", "If-None-Match: *", "Sec-Fetch-Site: cross-site",
    "X: " + "y" * 3000,
)  # fmt: skip
BROKEN = (
    "Host: evil.example", "Host:", "Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked, identity", "Cookie: \x7f\xff=;;;", "X" * 5000,
    "Authorization: Bearer \udcff\udcfe", ": nameless", "Host : spaced", "\tfolded",
)  # fmt: skip
BODIES = (
    "",
    '{"paused": true}',
    '{"score": NaN}',
    '{"score": 1e999}',
    "[" * 3000,
    "\xff\xfe",
    "5\r\nhello\r\n0\r\n\r\n",
)
KNOWN = f"Authorization: Bearer {TOKEN}"


def one_request(chance: random.Random) -> tuple[bytes, bool]:
    """Some bytes, and whether they hold the token. Half of them can be read and come to the handlers."""
    readable = chance.random() < 0.5
    headers = chance.sample(READABLE if readable else READABLE + BROKEN, chance.randrange(5))
    if readable or chance.random() < 0.8:
        headers.insert(0, "Host: localhost")
    if chance.random() < 0.6:
        headers.append(KNOWN)
    method, path, body, version = chance.choice(METHODS), chance.choice(PATHS), chance.choice(BODIES), "HTTP/1.1"
    if readable:
        method, path = chance.choice(METHODS[:10]), chance.choice(PATHS[:13])
        headers.append(f"Content-Length: {len(body.encode('utf-8'))}")
    elif chance.random() < 0.3:
        version = chance.choice(("HTTP/1.0", "HTTP/9.9", "HTP", ""))
    text = "\r\n".join([f"{method} {path} {version}", *headers, "", body])
    data = bytearray(text.encode("utf-8", "surrogateescape"))
    for _ in range(0 if readable else chance.choice((0, 0, 1, 3, 20))):
        place = chance.randrange(len(data) + 1)
        if (kind := chance.randrange(3)) == 0:
            data[place : place + 1] = chance.randbytes(1)
        elif kind == 1:
            del data[place : place + chance.randrange(1, 20)]
        else:
            data[place:place] = chance.randbytes(chance.randrange(1, 20))
    return bytes(data), TOKEN.encode() in data


def send(port: int, data: bytes) -> int | None:
    """The status of the answer; 0 where the server hung up, None where it did nothing."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        try:
            client.sendall(data)
            said = b""
            while len(said := said.removeprefix(CONTINUE)) < len(CONTINUE) and (more := client.recv(4096)):
                said += more
        except TimeoutError:
            return None
        except OSError:
            return 0
        return int(said[9:12]) if said.startswith(b"HTTP/1.") else 0


class Judge:
    """Takes the answers, and what the server logs, from any thread."""

    def __init__(self) -> None:
        self.statuses, self.failures = Counter[str](), list[str]()
        self._lock = threading.Lock()

    def answer(self, number: int, data: bytes, knows: bool, status: int | None) -> None:
        with self._lock:
            self.statuses["hung" if status is None else str(status or "hung up")] += 1
        broken = status is None or (status >= 500 and status not in (503, 505))
        if broken or (status in (200, 206) and not knows):
            self.fail(f"request {number}: {status}: {data[:200]!r}")

    def fail(self, text: str) -> None:
        with self._lock:
            self.failures.append(text)

    def log(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):  # that is a request that cannot be read
            self.fail(f"logged: {record.getMessage()}: {error!r}")


def drive(requests: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Send them; the statuses, and what failed."""
    guard.IDLE_S, guard.LOOK_S = 0.3, 0.05  # half a request is waited for less long than in earnest
    judge, chance = Judge(), random.Random(seed)
    handler = logging.Handler(logging.ERROR)
    handler.emit = judge.log  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("trt_blendmask.preview", "asyncio", "aiohttp")]
    for logger in loggers:
        logger.addHandler(handler)
    served, over = Served(TOKEN), threading.Event()

    def feed() -> None:
        for index in range(10**9):
            if over.wait(0.04):
                return
            began = time.monotonic()
            served.preview.write(result(index))
            if (waited := time.monotonic() - began) > 0.5:
                judge.fail(f"the pipeline waited {waited:.3f} s")

    def ask(number: int, data: bytes, knows: bool) -> None:
        judge.answer(number, data, knows, send(served.port, data))

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for number in range(requests):
                pool.submit(ask, number, *one_request(chance))
        if served.ask("/page.js", headers={"Authorization": f"Bearer {TOKEN}"})[0] != 200:
            judge.fail("a good request is refused afterwards")
    finally:
        over.set()
        feeder.join()
        served.preview.end()
        for logger in loggers:
            logger.removeHandler(handler)
    return judge.statuses, judge.failures


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    statuses, failures = drive(args.requests, args.seed)
    print(*failures[:20], sep="\n")
    answers = ", ".join(f"{count} x {status}" for status, count in statuses.most_common())
    print(f"{args.requests} requests, {len(failures)} failures, {time.monotonic() - began:.0f} s: {answers}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
