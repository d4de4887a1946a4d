"""The pages of `profile` in a real Chromium: nothing from outside, nothing cut off, a table that searches and sorts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.profiler import made_up
from trt_blendmask.profiler.diff import diff
from trt_blendmask.profiler.page import diff_page_of, page_of

pytestmark = pytest.mark.needs("chromium")
SHOTS = Path(os.environ.get("SHOTS", "out/profile"))
Opened = Callable[..., Page]
INSIDE = """() => [...document.querySelectorAll("svg text")].filter((word) => {
  const svg = word.closest("svg").getBoundingClientRect(), box = word.getBoundingClientRect();
  return box.width > 0 && (box.left < svg.left - 2 || box.right > svg.right + 2 || box.top < svg.top - 2);
}).map((word) => word.textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens HTML; a fault in its script, or a request for anything else, fails the test."""
    faults: list[str] = []
    pages: list[Page] = []

    def make(html: str, wh: tuple[int, int] = (1280, 900), scheme: str = "light") -> Page:
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_context(
            viewport={"width": wh[0], "height": wh[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
        ).new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: faults.append(asked.url) if asked.url != path.as_uri() else None)
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield make
    for page in pages:
        page.context.close()
    assert faults == []


def changed() -> str:
    one = made_up.report()
    model = one.models[2]
    assert model.layers is not None
    layers = tuple(replace(a, ms=2 * a.ms, error_ms=0.01) if a.part == "basis" else a for a in model.layers.layers)
    slower = replace(model, layers=replace(model.layers, layers=layers))
    return diff_page_of(diff(one, replace(one, models=(*one.models[:2], slower))))


@pytest.mark.parametrize("kind", ["profile", "diff"])
@pytest.mark.parametrize(
    ("name", "wh", "scheme"),
    [("desk", (1280, 900), "light"), ("phone", (390, 844), "light"), ("dark", (1280, 900), "dark")],
)
def test_nothing_is_cut_off(opened: Opened, kind: str, name: str, wh: tuple[int, int], scheme: str) -> None:
    page = opened(page_of(made_up.report()) if kind == "profile" else changed(), wh, scheme)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{kind}_{name}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == wh[0], "it scrolls sideways"
    assert page.evaluate(INSIDE) == []
    if name == "phone":
        smallest = "Math.min(...[...document.querySelectorAll('svg text')].map((t) => t.getBoundingClientRect().height)"
        assert page.evaluate(f"{smallest}.filter((height) => height > 0))") > 9, "letters that nobody can read"


def test_it_is_printed_dark_on_white_with_the_drawings_and_the_slowest_layers(opened: Opened) -> None:
    page = opened(page_of(made_up.report()), scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 35, 48)"
    shown = (
        "[...document.querySelectorAll('.layers tbody')].map((b) => [...b.rows].filter((r) => r.offsetHeight).length)"
    )
    assert page.evaluate(shown)[0] == 25
    assert not page.locator(".search").first.is_visible()
    assert len(page.pdf(format="A4")) > 50_000


def test_search_and_sort(opened: Opened) -> None:
    page = opened(page_of(made_up.report()))
    table = page.locator(".searched").first
    rows = table.locator("tbody tr:visible")
    profile = made_up.report().models[0].layers
    assert profile is not None
    expect(rows).to_have_count(len(profile.layers))
    table.locator("input").fill("res3 conv")
    wanted = [layer for layer in profile.layers if layer.part == "backbone.res3"]
    expect(rows).to_have_count(len(wanted))
    told = f"{len(wanted)} of {len(profile.layers)} layers, {sum(layer.ms for layer in wanted):.3g} ms"
    expect(table.locator("output")).to_have_text(told)
    by_ms = table.get_by_role("button", name="ms", exact=True)
    by_ms.click()
    by_ms.click()
    expect(table.locator("th[aria-sort=ascending]")).to_have_text("ms")
    fastest = min(wanted, key=lambda layer: layer.ms)
    expect(rows.first.locator("td").first).to_have_text(fastest.name)
    table.get_by_role("button", name="layer").click()
    expect(rows.first.locator("td").first).to_have_text("backbone.res3.0/Conv")
    expect(rows.nth(2).locator("td").first).to_have_text("backbone.res3.2/Conv")
    table.locator("input").fill("no such layer")
    expect(rows).to_have_count(0)


def test_hostile_names_run_nothing(opened: Opened) -> None:
    page = opened(page_of(made_up.report(hostile=True)))
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    assert page.locator("script").count() == 1
    expect(page.locator("h1")).to_contain_text("<script>alert('x')</script>")
    assert dialogs == []
