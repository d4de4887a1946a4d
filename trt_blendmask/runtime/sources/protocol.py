"""What every source is, whatever it reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from trt_blendmask.structures import U8, Frame


@dataclass(frozen=True)
class SourceState:
    """How a source is doing.

    Attributes:
        kind: "LIVE" (frames come), "NO SIGNAL" or "ENDED".
        since_wall_s: `time.time` since when; for "NO SIGNAL" the arrival of the last frame.
        reason: why there is no signal, in words; "" otherwise.
        reconnects: how often the signal came back.
    """

    kind: str
    since_wall_s: float
    reason: str = ""
    reconnects: int = 0


class Source(Protocol):
    """Frames in order, once.

    `close` may be called from any thread; it ends an iteration that is under way, and returns within two seconds.

    Attributes:
        name: what the user typed, without credentials.
        fps: nominal frames per second.
        frame_count: how many are expected, or None where that is not known.
        live: whether frames that nobody takes are dropped for newer ones.
        corrupt: frames met so far that were damaged: shown as far as they could be decoded, or left out.
        dropped: frames so far that made place for newer ones before anybody took them; always 0 where not live.
        cut_short: once a recording is over before its own end, a sentence that says so; "" otherwise.
    """

    name: str
    fps: float
    frame_count: int | None

    @property
    def corrupt(self) -> int: ...

    @property
    def live(self) -> bool: ...

    @property
    def dropped(self) -> int: ...

    @property
    def cut_short(self) -> str: ...

    def state(self) -> SourceState: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...


class Recorded:
    """What all sources that were recorded before have in common: they lose nothing and wait for their reader."""

    live = False
    dropped = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.corrupt = 0
        self.cut_short = ""
        self._index = 0
        self._state = SourceState("LIVE", time.time())

    def state(self) -> SourceState:
        return self._state

    def _frame(self, image: U8, time_s: float, name: str = "") -> Frame:
        """The next frame, read just now."""
        frame = Frame(image, self._index, time_s, name, time.monotonic(), time.time(), self.name)
        self._index += 1
        return frame

    def _end(self) -> None:
        self._state = SourceState("ENDED", time.time())
