"""Results in a window on this machine's screen."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import cv2

from trt_blendmask.errors import OutputError, SourceUnavailableError, first_line
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.structures import U8

_TICK_MS = 20
_STOP_KEYS = (ord("q"), ord("Q"), 27)  # 27: Esc
_MOST_WH = (1280, 720)  # of a window at first, pixels
_TRIAL = "import cv2; cv2.namedWindow('trt-blendmask'); cv2.waitKey(1); cv2.destroyAllWindows()"
_INSTEAD = "or look at the run in a browser: --serve 8080"


class Window:
    """Shows the newest picture of each source, in a window of its own; the run never waits for the screen.

    A thread of its own does all that concerns windows, as the libraries behind OpenCV want it, and so keys are heard
    while no picture comes. q, Esc or closing a window ends the run as Ctrl-C does.
    """

    name, draws = "window", True

    def __init__(self, controls: Controls, events: Events) -> None:
        self.written: list[Path] = []
        self._controls, self._events = controls, events
        self._lock = threading.Lock()  # guards the next two
        self._newest: dict[str, U8] = {}  # by source, what is not shown yet
        self._lost: dict[str, str] = {}  # by source without a signal, since when and why
        self._shown: dict[str, U8] = {}
        self._error = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="window", daemon=True)

    def check(self) -> None:
        """Find out whether there is a screen, and wait for pictures.

        Raises:
            SourceUnavailableError: OpenCV has no windows, or there is no screen.
        """
        check_windows()
        self._unsubscribe = self._events.subscribe(self._note)
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        if self._error:
            raise OutputError(f"Cannot show a window: {self._error}")
        with self._lock:
            self._newest[result.frame.source] = result.picture

    def close(self) -> None:
        self._unsubscribe()
        self._closing.set()
        self._thread.join(1.0)

    def _note(self, event: Event) -> None:
        source = str(event.details.get("source", ""))
        with self._lock:
            if event.kind == "source_lost":
                self._lost[source] = event.text
            elif event.kind == "source_opened":
                self._lost.pop(source, None)

    def _work(self) -> None:
        try:
            while not self._closing.is_set():
                self._show()
                if self._is_left():
                    self._controls.ask_to_stop()
                    break
            cv2.destroyAllWindows()
        except cv2.error as error:
            self._error = first_line(error)

    def _show(self) -> None:
        with self._lock:
            newest, self._newest, lost = self._newest, {}, dict(self._lost)
        for source, picture in newest.items():
            if source not in self._shown:
                height, width = picture.shape[:2]
                scale = min(1.0, _MOST_WH[0] / width, _MOST_WH[1] / height)
                cv2.namedWindow(source, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
                cv2.resizeWindow(source, max(1, round(width * scale)), max(1, round(height * scale)))
            self._shown[source] = picture
            cv2.imshow(source, picture)
        for source in self._shown:
            cv2.setWindowTitle(source, lost.get(source, source))

    def _is_left(self) -> bool:
        if not self._shown:
            self._closing.wait(_TICK_MS / 1e3)
            return False
        key = cv2.waitKey(_TICK_MS) & 0xFF
        return key in _STOP_KEYS or any(cv2.getWindowProperty(one, cv2.WND_PROP_VISIBLE) < 1 for one in self._shown)


def check_windows() -> None:
    """Open a window in another process: without a screen, some libraries behind OpenCV end the process at once.

    Raises:
        SourceUnavailableError: it did not open.
    """
    if not any("GUI:" in line and "NONE" not in line for line in cv2.getBuildInformation().splitlines()):
        raise SourceUnavailableError(
            f"Expected an OpenCV with windows for --show, got the headless one: pip uninstall opencv-python-headless; "
            f"pip install opencv-python, {_INSTEAD}"
        )
    try:
        opened = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        opened = None
    if opened is None or opened.returncode:
        raise SourceUnavailableError(
            f"Expected a screen for --show, but no window could be opened: log in at this machine's screen, {_INSTEAD}"
        )
