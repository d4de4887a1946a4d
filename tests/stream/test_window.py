"""--show, over a double of OpenCV's windows; with a real one where there is a screen to be had."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest

from tests.runtime.conftest import stub_model  # noqa: F401
from trt_blendmask.errors import OutputError, SourceUnavailableError
from trt_blendmask.runtime import window
from trt_blendmask.runtime.controls import Controls
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.recording import Recording
from trt_blendmask.runtime.result import FrameResult

from .conftest import until

Maker = Callable[..., Path]
FOREVER = "synthetic:conveyor?live=1&fps=50&size=64x36"


class Screen:
    """Attributes: pictures: what was shown last, by window; titles; threads: who called; key: to be pressed next."""

    WINDOW_NORMAL, WINDOW_KEEPRATIO, WINDOW_GUI_NORMAL, WND_PROP_VISIBLE, error = 0, 0, 16, 4, cv2.error

    def __init__(self) -> None:
        self.pictures: dict[str, np.ndarray] = {}
        self.titles: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.threads: set[str] = set()
        self.key, self.closed, self.count = -1, False, 0

    def _note(self) -> None:
        self.threads.add(threading.current_thread().name)

    def namedWindow(self, name: str, _flags: int) -> None:  # noqa: N802
        self._note()
        self.titles[name] = name

    def resizeWindow(self, name: str, width: int, height: int) -> None:  # noqa: N802
        self.sizes[name] = (width, height)

    def imshow(self, name: str, picture: np.ndarray) -> None:
        self._note()
        self.pictures[name], self.count = picture, self.count + 1

    def setWindowTitle(self, name: str, title: str) -> None:  # noqa: N802
        self.titles[name] = title

    def waitKey(self, ms: int) -> int:  # noqa: N802
        threading.Event().wait(ms / 1e3)
        return self.key

    def getWindowProperty(self, _name: str, _which: int) -> float:  # noqa: N802
        return 0.0 if self.closed else 1.0

    def destroyAllWindows(self) -> None:  # noqa: N802
        self._note()
        self.titles.clear()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    made = Screen()
    monkeypatch.setattr(window, "cv2", made)
    monkeypatch.setattr(window, "check_windows", lambda: None)
    return made


@pytest.mark.parametrize("way", ["q", "Esc", "closed"])
def test_it_shows_pictures_and_ends_the_run(stub_model: Maker, tmp_path: Path, screen: Screen, way: str) -> None:  # noqa: F811
    reports = []
    recording = Recording(show=True, save=tmp_path / "a.mp4")
    thread = threading.Thread(target=lambda: reports.append(run(stub_model(), FOREVER, recording=recording)))
    thread.start()
    assert until(lambda: screen.count > 5)
    assert list(screen.pictures) == [FOREVER]
    assert screen.pictures[FOREVER].shape == (36, 64, 3)
    screen.key, screen.closed = {"q": ord("q"), "Esc": 27, "closed": -1}[way], way == "closed"
    thread.join(5)
    assert not thread.is_alive()
    assert (reports[0].stopped, reports[0].failures) == (True, ())
    assert screen.threads == {"window"}
    assert screen.titles == {}
    assert (tmp_path / "a.mp4").stat().st_size > 500


def shown(picture_hw: tuple[int, int]) -> FrameResult:
    result = SimpleNamespace(frame=SimpleNamespace(source="cam"), picture=np.zeros((*picture_hw, 3), np.uint8))
    return cast(FrameResult, result)


def test_other_keys_change_nothing_and_a_big_picture_fits(screen: Screen) -> None:
    screen.key, controls = ord("x"), Controls()
    sink = window.Window(controls, Events())
    sink.check()
    sink.write(shown((2160, 2560)))
    assert until(lambda: screen.count == 1)
    assert screen.sizes["cam"] == (853, 720)
    sink.close()
    assert not controls.stop_asked


def test_the_title_says_that_the_signal_is_lost_and_a_window_that_fails_is_told(screen: Screen) -> None:
    events = Events()
    sink = window.Window(Controls(), events)
    sink.check()
    sink.write(shown((4, 4)))
    assert until(lambda: screen.titles.get("cam") == "cam")
    events.publish("source_lost", "cam: NO SIGNAL since 12:00:00 (reset)", {"source": "cam"})
    assert until(lambda: "NO SIGNAL since 12:00:00" in screen.titles["cam"])
    events.publish("source_opened", "cam: LIVE", {"source": "cam"})
    assert until(lambda: screen.titles["cam"] == "cam")
    screen.imshow = broken  # type: ignore[method-assign]
    sink.write(shown((4, 4)))
    assert until(lambda: not sink._thread.is_alive())
    with pytest.raises(OutputError, match="the screen is gone"):
        sink.write(shown((4, 4)))
    sink.close()
    assert not events._callbacks


def broken(*_: object) -> None:
    raise cv2.error("the screen is gone")


def test_an_opencv_without_windows_and_a_machine_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    with pytest.raises(SourceUnavailableError, match="--serve 8080"):
        window.check_windows()
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    with pytest.raises(SourceUnavailableError, match="got the headless one: pip uninstall"):
        window.check_windows()
