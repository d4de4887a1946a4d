"""Questions to other programs: each in a process of its own, with a time limit that holds whatever the program does."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

MAX_BYTES = 1 << 20  # of each output; the rest is thrown away
MISSING = "not installed"
_TICK_S = 0.1
_LAST_WORDS_S = 1.0  # how long a killed process may take to go; one that the kernel holds is left behind


@dataclass(frozen=True)
class Answer:
    """What a program printed; `problem`: why it gave no whole answer, "" where it did."""

    out: str = ""
    problem: str = ""


def ask(command: Sequence[str], env: Mapping[str, str], limit_s: float, stop: threading.Event) -> Answer:
    """Run `command` for at most `limit_s` seconds, or until `stop` is set; never raises for what it does."""
    try:
        process = subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what it starts can be ended with it
        )
    except FileNotFoundError:
        return Answer(problem=MISSING)
    except OSError as error:
        return Answer(problem=f"cannot be started: {error.strerror or error}")
    try:
        return _listen(process, limit_s, stop)
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _listen(process: subprocess.Popen[bytes], limit_s: float, stop: threading.Event) -> Answer:
    """Read until both outputs end, or the program has: a child of its own may hold them open."""
    assert process.stdout is not None
    assert process.stderr is not None
    heard = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = heard.values()
    deadline = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for number in heard:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_TICK_S)
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                heard[key.fd] += piece[: MAX_BYTES - len(heard[key.fd])]
                if not piece:
                    selector.unregister(key.fd)
            if stop.is_set() or time.monotonic() > deadline:
                return Answer(_text(out), f"did not answer in {limit_s:g} s")
            if not ready and process.poll() is not None:
                break
    try:
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Answer(_text(out), f"did not answer in {limit_s:g} s")
    return Answer(_text(out), _ending(code, _text(err) or _text(out)))


def _ending(code: int, said: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        with suppress(ValueError):
            return f"crashed ({signal.Signals(-code).name})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = lines[-1 if lines[0].startswith("Traceback") else 0].rstrip(".") if lines else "it does not say why"
    return f"failed with exit code {code}: {told[:200]}"


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace")
