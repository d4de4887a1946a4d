"""The page in a real Chromium: the picture moves, sliders change what is drawn, NO SIGNAL appears and goes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.runtime.conftest import stub_model  # noqa: F401
from tests.stream.rtsp_server import RtspServer

pytestmark = pytest.mark.needs("chromium")
Maker = Callable[..., Path]
SHOTS = Path(os.environ.get("SHOTS", "out/preview"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield made
        made.close()


class Run:
    """`trt-blendmask run --serve 0` in a process of its own."""

    def __init__(self, model: Path, *more: str) -> None:
        words = [
            sys.executable,
            "-m",
            "trt_blendmask",
            "run",
            "--serve",
            "0",
            "--score",
            "0",
            str(model),
            *more,
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.url = self.process.stderr.readline().split()[1].removesuffix("?token=...")

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.fixture
def start(stub_model: Maker) -> Iterator[Callable[..., Run]]:  # noqa: F811
    runs: list[Run] = []

    def make(source: str, *more: str) -> Run:
        runs.append(Run(stub_model(), source, *more))
        return runs[-1]

    yield make
    for run in runs:
        run.end()


def opened(browser: Browser, run: Run, path: str = "", scheme: str = "dark", wh: tuple[int, int] = (1280, 800)) -> Page:
    """The page, once it shows pictures; a fault in its script fails the test."""
    context = browser.new_context(viewport={"width": wh[0], "height": wh[1]}, color_scheme=scheme)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.faults = faults  # type: ignore[attr-defined]
    page.goto(run.url + path, wait_until="domcontentloaded")
    expect(page.locator("#status")).to_have_text("LIVE", timeout=20000)
    return page


def shown(page: Page) -> np.ndarray:
    data = page.locator("#picture").screenshot()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(np.int32)


def until_shown(page: Page, holds: Callable[[np.ndarray], bool], seconds: float = 10) -> bool:
    end_s = time.monotonic() + seconds
    while not (found := holds(shown(page))) and time.monotonic() < end_s:
        time.sleep(0.1)
    return found


def colour(picture: np.ndarray) -> float:
    """How colourful: the mean spread of the three channels."""
    return float((picture.max(axis=2) - picture.min(axis=2)).mean())


BELT = "synthetic:conveyor?live=1&fps=10&size=320x180"


@pytest.mark.parametrize(("name", "wh", "scheme"), [("wide", (1280, 800), "light"), ("phone", (390, 844), "dark")])
def test_the_picture_moves(
    browser: Browser, start: Callable[..., Run], name: str, wh: tuple[int, int], scheme: str
) -> None:
    page = opened(browser, start(BELT), scheme=scheme, wh=wh)
    first = shown(page)
    assert until_shown(page, lambda now: now.shape == first.shape and float(np.abs(now - first).mean()) > 1)
    expect(page.locator("#fps")).to_have_text(re.compile(r"^([2-9]|1\d)\.\d$"), timeout=15000)  # of 10
    ground = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 384) is (scheme == "light")
    width, inner = page.locator("html").evaluate("e => [e.scrollWidth, innerWidth]")
    assert width <= inner  # nothing to scroll sideways
    box = page.locator("#picture").bounding_box()
    assert box is not None
    assert box["width"] > 0.6 * min(wh[0], 800)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=name == "phone")
    assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


def test_controls_change_what_is_drawn(browser: Browser, start: Callable[..., Run], tmp_path: Path) -> None:
    page = opened(browser, start(BELT, "--save", str(tmp_path / "a.mp4")))
    assert until_shown(page, lambda now: colour(now) > 5)
    coloured = colour(shown(page))
    page.locator("#score").fill("1")  # nothing scores so much
    assert until_shown(page, lambda now: colour(now) < coloured / 3)
    page.locator("#score").fill("0")
    assert until_shown(page, lambda now: colour(now) > coloured / 2)
    page.locator("#opacity").fill("0")  # outlines and labels stay
    assert until_shown(page, lambda now: colour(now) < 0.8 * coloured)
    for box in page.locator("#classes input").all():
        box.uncheck()
    assert until_shown(page, lambda now: colour(now) < coloured / 3)

    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("PAUSED")
    time.sleep(0.7)
    still = shown(page)
    time.sleep(0.7)
    assert float(np.abs(shown(page) - still).mean()) < 0.2
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#status")).to_have_text("LIVE")

    with page.expect_download() as download:
        page.get_by_role("link", name="Snapshot").click()
    assert cv2.imread(str(download.value.path())).shape == (180, 320, 3)
    page.get_by_role("button", name="Stop recording").click()
    expect(page.get_by_role("button", name="Record", exact=True)).to_be_visible()
    expect(page.locator("#events")).to_contain_text("not recording")
    assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


def test_no_signal_comes_and_goes(browser: Browser, start: Callable[..., Run]) -> None:
    with RtspServer() as server:
        page = opened(browser, start(server.url, "--stale", "0.5"))
        server.mode = "freeze"
        expect(page.locator("#status")).to_contain_text("NO SIGNAL since", timeout=8000)
        expect(page.locator("#veil")).to_be_visible()
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / "no_signal.png")
        server.mode = "ok"
        server.drop(reset=True)
        expect(page.locator("#status")).to_have_text("LIVE", timeout=12000)
        expect(page.locator("#veil")).to_be_hidden()
        expect(page.locator("#events")).to_contain_text("NO SIGNAL")
        first = shown(page)
        assert until_shown(page, lambda now: float(np.abs(now - first).mean()) > 0.2)
    page.context.close()


@pytest.mark.parametrize(("name", "wh"), [("wide", (1280, 800)), ("phone", (390, 844))])
def test_several_sources_are_all_shown_and_one_is_chosen(
    browser: Browser, start: Callable[..., Run], name: str, wh: tuple[int, int]
) -> None:
    with RtspServer() as server:
        page = opened(browser, start(BELT, BELT.replace("320x180", "240x180"), server.url, "--stale", "0.5"), wh=wh)
        tiles = page.locator("#sources button")
        expect(tiles).to_have_count(3)
        for index in range(3):
            expect(tiles.nth(index)).to_contain_text("FPS", timeout=15000)
            expect(tiles.nth(index).locator("img")).to_have_js_property("complete", True)
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 320)
        tiles.nth(1).click()
        expect(page.locator("#picture")).to_have_js_property("naturalWidth", 240, timeout=10000)
        first = shown(page)
        assert until_shown(page, lambda now: now.shape == first.shape and float(np.abs(now - first).mean()) > 1)
        expect(tiles.nth(1)).to_have_attribute("aria-pressed", "true")
        server.mode = "freeze"
        expect(tiles.nth(2)).to_contain_text("NO SIGNAL", timeout=8000)
        expect(page.locator("#status")).to_have_text("LIVE")  # of the one that is shown
        width, inner = page.locator("html").evaluate("e => [e.scrollWidth, innerWidth]")
        assert width <= inner
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"several_{name}.png", full_page=name == "phone")
        tiles.nth(2).click()
        expect(page.locator("#status")).to_contain_text("NO SIGNAL since")
        with page.expect_download() as download:
            page.get_by_role("link", name="Snapshot").click()
        assert cv2.imread(str(download.value.path())) is not None
        page.reload(wait_until="domcontentloaded")  # the choice is in the address
        expect(page.locator("#status")).to_contain_text("NO SIGNAL since", timeout=8000)
        assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


def test_a_token_leaves_the_address_bar(browser: Browser, start: Callable[..., Run]) -> None:
    run = start(BELT, "--token", "correct-horse")
    run.url = f"http://127.0.0.1:{run.url.rstrip('/').rpartition(':')[2]}/"
    page = opened(browser, run, "?token=correct-horse")
    assert page.url == run.url
    assert until_shown(page, lambda now: colour(now) > 5)
    page.context.close()
    stranger = browser.new_context().new_page()
    answer = stranger.goto(run.url)
    assert answer is not None
    assert answer.status == 401
    stranger.context.close()


def test_the_run_ends_and_comes_back(browser: Browser, start: Callable[..., Run]) -> None:
    run = start(BELT)
    page = opened(browser, run)
    port = run.url.rstrip("/").rpartition(":")[2]
    run.end()
    expect(page.locator("#status")).to_contain_text("NO CONNECTION", timeout=15000)
    start(BELT, "--serve", port)
    expect(page.locator("#status")).to_have_text("LIVE", timeout=20000)
    first = shown(page)
    assert until_shown(page, lambda now: float(np.abs(now - first).mean()) > 1)
    page.context.close()
