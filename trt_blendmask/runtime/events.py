"""What happened while frames ran: sources lost and found, sizes changed, outputs stopped."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

HISTORY = 1000  # events kept; a camera that fails for a year must not fill the memory


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        number: 1, 2, ... of one `Events`.
        kind: one word, such as "source_lost": what a program looks at.
        text: one sentence for a person; never holds credentials.
        monotonic_s, wall_s: when, by `time.monotonic` (for intervals) and `time.time` (for people).
        details: plain JSON values by name.
    """

    number: int
    kind: str
    text: str
    monotonic_s: float
    wall_s: float
    details: dict[str, Any]


class Events:
    """Takes events from any thread, counts them, keeps the last `HISTORY` and hands each to who subscribed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._counters: Counter[str] = Counter()
        self._callbacks: list[Callable[[Event], None]] = []
        self._number = 0  # of the newest

    def publish(self, kind: str, text: str, details: Mapping[str, Any] | None = None) -> None:
        """Say that something happened, now."""
        with self._lock:
            self._number += 1
            event = Event(self._number, kind, text, time.monotonic(), time.time(), dict(details or {}))
            self._history.append(event)
            self._counters[kind] += 1
            callbacks = list(self._callbacks)
        for callback in callbacks:
            self._call(callback, event)

    def _call(self, callback: Callable[[Event], None], event: Event) -> None:
        try:
            callback(event)
        except Exception:  # a listener that fails must not stop the camera
            self._drop(callback)
            with self._lock:
                self._counters["listener_failed"] += 1

    def _drop(self, callback: Callable[[Event], None]) -> None:
        with self._lock:
            self._callbacks = [other for other in self._callbacks if other is not callback]

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` with every event from now on, in the thread that publishes it: be quick.

        A callback that raises is dropped, and counted as "listener_failed".

        Returns:
            what ends that; from any thread, and twice is harmless.
        """
        with self._lock:
            self._callbacks.append(callback)
        return partial(self._drop, callback)

    def history(self) -> tuple[Event, ...]:
        """The last events, oldest first."""
        with self._lock:
            return tuple(self._history)

    def counters(self) -> dict[str, int]:
        """How many there were of each kind."""
        with self._lock:
            return dict(self._counters)
