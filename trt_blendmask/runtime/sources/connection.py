"""A line to a source, as the sources that may break see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from trt_blendmask.runtime.sources.decode import Decoder, Shot


class Connection(Protocol):
    """An open line; used by one thread.

    Attributes:
        fps: nominal frames per second, None where nobody says.
        ends: whether its end is the end of the source (a recording) and not a loss (a camera).
        lossless: whether every frame is wanted, so that the reader may hold it up.
        damaged: packets so far of which no picture could be made.
        heard_s: `time.monotonic` of the last sign of life.
    """

    @property
    def fps(self) -> float | None: ...
    @property
    def ends(self) -> bool: ...
    @property
    def lossless(self) -> bool: ...
    @property
    def damaged(self) -> int: ...
    @property
    def heard_s(self) -> float: ...

    def read(self) -> Shot | None:
        """The next picture, None at the end; waits for it.

        Raises:
            any error: the line broke; `trt_blendmask.runtime.sources.reasons.loss_of` knows why.
        """
        ...

    def close(self) -> None: ...


# Opens a line, or raises; the event is set when nothing more is wanted from it.
Connect = Callable[[threading.Event], Connection]


class Decoded:
    """A connection to what FFmpeg has opened."""

    def __init__(
        self, container: Any, recorded: bool, left: threading.Event, behind: Callable[[int], bytes] | None = None
    ) -> None:
        """`behind`: as of `Decoder`.

        Raises:
            LookupError: no video in it.
        """
        self._left = left
        try:
            self._decoder = Decoder(container, not recorded, left, behind)
        except LookupError:
            container.close()
            raise
        self.ends = self.lossless = recorded
        self.fps = self._decoder.fps
        self.close = container.close

    def read(self) -> Shot | None:
        return self._decoder.read()

    @property
    def damaged(self) -> int:
        return self._decoder.damaged

    @property
    def heard_s(self) -> float:
        return self._decoder.heard_s
