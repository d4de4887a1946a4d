"""Room for one frame between the thread that captures and the one that works."""

from __future__ import annotations

import threading

from trt_blendmask.structures import Frame

_POLL_S = 0.1  # Python sees Ctrl-C only when its main thread wakes, and the kernel may give the signal to another one


class Slot:
    """Holds the newest frame. Attributes: dropped: frames that were replaced before anybody took them."""

    def __init__(self) -> None:
        self.dropped = 0
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._error: Exception | None = None
        self._ended = False

    def put(self, frame: Frame, wait: bool) -> None:
        """Offer `frame`: in place of the one that is there, or, where `wait`, when that one has been taken."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._frame is None or self._ended)
            self.dropped += self._frame is not None
            if not self._ended:
                self._frame = frame
                self._changed.notify_all()

    def take(self) -> Frame | None:
        """The frame, as soon as there is one; None at the end.

        Raises:
            the error given to `end`.
        """
        with self._changed:
            while self._frame is None and not self._ended:
                self._changed.wait(_POLL_S)
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def end(self, error: Exception | None = None, discard: bool = False) -> None:
        """No more frames; the one that is there may still be taken unless `discard`."""
        with self._changed:
            self._ended = True
            self._error = self._error or error
            if discard:
                self._frame = self._error = None
            self._changed.notify_all()
