"""What the tests of sources share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from trt_blendmask.runtime.sources import live


def until(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `holds` becomes true in time."""
    end_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries a tenth as long."""
    for name in ("FIRST_PAUSE_S", "LONGEST_PAUSE_S", "_LEAST_PAUSE_S"):
        monkeypatch.setattr(live, name, getattr(live, name) / 10)


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fails a test that leaves a thread of ours behind."""

    def ours() -> int:
        return sum(thread.name.startswith("source") for thread in threading.enumerate())

    before = ours()
    yield
    assert until(lambda: ours() <= before, 5), [thread.name for thread in threading.enumerate()]
