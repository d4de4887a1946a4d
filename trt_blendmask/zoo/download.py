"""Fetches one file by HTTP into a partial file that a later run, or a later try, goes on with."""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

from trt_blendmask import __version__
from trt_blendmask.errors import DataError, SourceUnavailableError, UsageError
from trt_blendmask.export.reader import looks_like_checkpoint
from trt_blendmask.export.sniff import describe
from trt_blendmask.files import cannot_write

Progress = Callable[[int, "int | None"], None]

CHUNK = 1 << 18
TIMEOUT_S = 30.0
TRIES = 5  # in a row that bring nothing
MAX_TRIES = 200
FIRST_WAIT_S = 1.0  # then twice as long each time
RETRIED = (408, 425, 429, 500, 502, 503, 504)
FAULTS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class _AgainError(Exception):
    """This try failed in a way that another one may not."""


@dataclass(frozen=True)
class _State:
    """What is known of the whole file while only a part is here; beside the part, as `<part>.json`."""

    url: str
    validator: str  # the ETag, else the time of the last change; "": the server gives neither
    total: int | None


def shown(url: str) -> str:
    """The address without user, password and query, for messages and records."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def download(url: str, part: Path, progress: Progress) -> str:
    """Fetch `url` into `part`, going on where an earlier run of the same address stopped.

    The environment's proxies are used; redirects are followed, but never from https to http.

    Returns:
        The SHA-256 that the server states for the file, "" if it states none.

    Raises:
        UsageError: not an http or https address. SourceUnavailableError: not there, refused, or cut off time and again.
        DataError: it is no checkpoint. OutputError: the part cannot be written.
    """
    return _Download(url, part, progress).run()


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5
    sha256 = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or urlsplit(req.full_url).scheme == "https"):
            raise SourceUnavailableError(
                f"Refused to follow {shown(req.full_url)} to {shown(newurl)}, which is not encrypted. Name another "
                "place with --mirror."
            )
        stated = str(headers.get("X-Linked-Etag", "")).strip('"')  # of Hugging Face
        if re.fullmatch("[0-9a-f]{64}", stated):
            self.sha256 = stated
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Download:
    def __init__(self, url: str, part: Path, progress: Progress) -> None:
        self.url, self.shown = plain(url), shown(url)
        self.part, self.notes, self.progress = part, part.with_name(f"{part.name}.json"), progress
        self.redirects = _Redirects()
        self.opener = urllib.request.build_opener(self.redirects)
        self.headers = {"User-Agent": f"trt-blendmask/{__version__}", "Accept-Encoding": "identity"}
        self.credentials = _credentials(url)
        self.state = self.read_state()

    def run(self) -> str:
        failures, most, fault = 0, self.size(), ""
        for _ in range(MAX_TRIES):
            fault = self.fault_of_attempt()
            if not fault:
                self.notes.unlink(missing_ok=True)
                return self.redirects.sha256
            failures = 1 if self.size() > most else failures + 1  # what comes a second time is no progress
            most = max(most, self.size())
            if failures >= TRIES:
                break
            time.sleep(FIRST_WAIT_S * 2 ** (failures - 1))
        return self.give_up(fault)

    def fault_of_attempt(self) -> str:
        """Why one request did not bring the rest of the file, "" if it did."""
        try:
            self.attempt()
        except _AgainError as error:
            return str(error)
        return ""

    def give_up(self, reason: str) -> NoReturn:
        kept = f" {self.size() / 1e6:.1f} MB are kept: type the same command to go on." if self.size() else ""
        raise SourceUnavailableError(
            f"Cannot fetch {self.shown}: {reason}.{kept or ' Check the network, or name another place with --mirror.'}"
        )

    def size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def attempt(self) -> None:
        """One request, if the file is not whole; the rest of it is here afterwards."""
        have = self.size() if self.state else 0
        if self.state and have and have == self.state.total:
            return
        with self.open(have) as response:
            total = self.accept(response, have)
            if response.status != 206:
                have = 0
            self.progress(have, total)
            self.receive(response, have, total)
        if total is not None and self.size() != total:
            raise _AgainError(f"the connection ended after {self.size()} of {total} bytes")

    def open(self, have: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.url, headers=self.headers)
        if self.credentials:
            request.add_unredirected_header("Authorization", self.credentials)
        if have and self.state:
            request.add_header("Range", f"bytes={have}-")
            if self.state.validator and not self.state.validator.startswith("W/"):
                request.add_header("If-Range", self.state.validator)
        try:
            response: http.client.HTTPResponse = self.opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                self.refused(error.code)
        except FAULTS as error:
            self.failed(error)
        except ValueError:  # an address that no server should send
            self.give_up("it redirects to an address that is none")
        return response

    def refused(self, status: int) -> NoReturn:
        if status == 416:  # the file became shorter
            self.restart()
            raise _AgainError("the server has less of it than before")
        if status in RETRIED:
            raise _AgainError(f"the server answered {status}")
        reason = http.client.responses.get(status, "unknown")
        lost = "it redirects in a circle, or to what is no web address"
        self.give_up(lost if 300 <= status < 400 else f"the server answered {status} ({reason})")

    def failed(self, error: BaseException) -> NoReturn:
        cause = getattr(error, "reason", error)
        reason = str(getattr(cause, "strerror", None) or cause or type(cause).__name__)[:160]
        if isinstance(cause, ssl.SSLCertVerificationError):
            self.give_up(f"its certificate was not accepted ({cause.verify_message})")
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            self.give_up(f"its host is not known ({reason})")
        raise _AgainError(reason)

    def accept(self, response: http.client.HTTPResponse, have: int) -> int | None:
        """Check the answer against what was asked for; returns the size of the whole file if it is known."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            self.give_up("the server sends it compressed")
        validator = headers.get("ETag") or headers.get("Last-Modified") or ""
        if response.status == 206:
            place = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", ""))
            total = int(place[2]) if place and place[2] != "*" else None
            if not place or int(place[1]) != have or self.state != _State(self.shown, validator, total):
                self.restart()
                raise _AgainError("the file changed on the server")
            return total
        if response.status != 200:
            self.give_up(f"the server answered {response.status}")
        self.restart()
        self.state = _State(self.shown, validator, _length(headers))
        self.write_state()
        return self.state.total

    def receive(self, response: http.client.HTTPResponse, have: int, total: int | None) -> None:
        try:
            stream = self.part.open("ab")
        except OSError as error:
            raise cannot_write(self.part, error) from error
        with stream:
            self.alone(stream)
            head = b"" if have else self.read(response, CHUNK)
            if not have and not looks_like_checkpoint(head):
                self.not_a_checkpoint(head)
            while head or (head := self.read(response, CHUNK)):
                try:
                    stream.write(head)
                    stream.flush()
                except OSError as error:
                    raise cannot_write(self.part, error) from error
                have += len(head)
                self.progress(have, total)
                head = b""

    def alone(self, stream: IO[bytes]) -> None:
        """Raises UsageError if another process is writing this part."""
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another command is fetching '{self.part}': wait for it, or name another place."
            ) from None

    def read(self, response: http.client.HTTPResponse, most: int) -> bytes:
        try:
            return response.read1(most)
        except FAULTS as error:
            self.failed(error)

    def not_a_checkpoint(self, head: bytes) -> None:
        if not head:
            raise _AgainError("the server sent nothing")
        self.restart()
        raise DataError(
            f"Expected a checkpoint from {self.shown}, but what came looks like {describe(head[:512])}. Name another "
            "place with --mirror."
        )

    def restart(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.state = None

    def read_state(self) -> _State | None:
        """What an earlier run noted of this very address; otherwise its part is dropped."""
        try:
            state = _State(**json.loads(self.notes.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            state = None
        if state is None or state.url != self.shown or not self.part.is_file():
            self.restart()
        return self.state if state is None else state

    def write_state(self) -> None:
        try:
            self.notes.write_text(json.dumps(asdict(self.state)) if self.state else "", "utf-8")
        except OSError as error:
            raise cannot_write(self.notes, error) from error


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def plain(url: str) -> str:
    """The address without user and password.

    Raises:
        UsageError: it is none, or not of http or https.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or re.search(r"[\x00-\x20\x7f]", url):
        raise UsageError("Expected an http or https address, or a folder, after --mirror. As in: --mirror /mnt/models")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))


def _credentials(url: str) -> str:
    user, found, _ = urlsplit(url).netloc.rpartition("@")
    return f"Basic {base64.b64encode(unquote(user).encode()).decode()}" if found else ""
