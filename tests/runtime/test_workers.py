"""The two helper threads: order, errors, and that they always end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from trt_blendmask.runtime.workers import DEPTH, Ahead, Behind


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_ahead_keeps_the_order_and_reads_only_a_little_ahead() -> None:
    produced: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(20):
            produced.append(i)
            yield i

    ahead = Ahead(numbers())
    time.sleep(0.05)
    assert len(produced) <= DEPTH + 1
    assert list(ahead) == list(range(20))
    ahead.close()


def test_ahead_hands_the_error_over_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    ahead, got = Ahead(broken()), []
    with pytest.raises(ValueError, match="no more"):
        for item in ahead:
            got.append(item)  # noqa: PERF402
    assert got == [1]
    ahead.close()


def test_ahead_ends_though_nobody_reads() -> None:
    ahead = Ahead(iter(range(1000)))
    ahead.close()
    ahead.close()


def test_behind_writes_all_in_order() -> None:
    written: list[int] = []
    behind = Behind(written.append)
    for i in range(20):
        behind.put(i)
    behind.close()
    behind.close()
    assert written == list(range(20))


def test_behind_hands_its_error_over_and_never_blocks() -> None:
    def broken(_: int) -> None:
        raise ValueError("disk")

    behind = Behind(broken)
    with pytest.raises(ValueError, match="disk"):
        for i in range(10 * DEPTH):
            behind.put(i)
    with pytest.raises(ValueError, match="disk"):
        behind.close()
    behind.abort()


def test_abort_drops_what_is_pending() -> None:
    written: list[int] = []
    release = threading.Event()

    def slow(item: int) -> None:
        release.wait(5)
        written.append(item)

    behind = Behind(slow)
    for i in range(DEPTH + 1):
        behind.put(i)
    timer = threading.Timer(0.3, release.set)
    timer.start()
    behind.abort()
    timer.join()
    assert written == [0]
