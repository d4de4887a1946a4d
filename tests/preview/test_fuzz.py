"""A short run of `fuzz.py`, and proof that it would find a hole."""

from __future__ import annotations

import pytest
from aiohttp import web

from trt_blendmask.runtime.preview import guard
from trt_blendmask.runtime.preview.site import Site

from .fuzz import drive


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE_S", "LOOK_S"):  # which `drive` changes
        monkeypatch.setattr(guard, name, getattr(guard, name))


def test_no_request_does_harm() -> None:
    statuses, failures = drive(400, seed=2)
    assert not failures
    assert {"200", "400", "401", "403", "404", "405"} <= set(statuses)


@pytest.mark.parametrize("hole", ["token", "crash"])
def test_holes_are_found(hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if hole == "token":
        monkeypatch.setattr(guard.Guard, "_ask_token", lambda *_: None)
    else:

        async def crash(*_: object) -> web.Response:
            raise KeyError("a fault")

        monkeypatch.setattr(Site, "_health", crash)
    assert drive(150, seed=3)[1]
