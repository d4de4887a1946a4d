"""Who waits for whom: order, bounds, the newest frame, turns, and that everything ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trt_blendmask.runtime.flow import DEPTH, Flow
from trt_blendmask.structures import Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def flow_of(*live: bool, threads: int = 2, **options: Any) -> Flow[int]:
    return Flow([SimpleNamespace(live=one) for one in live], threads, **options)  # type: ignore[misc]


def frame(index: int) -> Frame:
    return Frame(IMAGE, index)


def start(work: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=args)
    thread.start()
    return thread


def feed(flow: Flow[int], source: int, count: int) -> None:
    for index in range(count):
        if not flow.offer(source, frame(index)):
            break
    flow.read_out()


def work(flow: Flow[int]) -> None:
    while (ticket := flow.take()) is not None:
        time.sleep(random.random() / 500)
        flow.done(ticket, ticket.frame.index)


def results(flow: Flow[int]) -> list[int]:
    got: list[int] = []
    while (result := flow.next_result()) is not None:
        got.append(result)
        flow.written()
    return got


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_all_frames_of_a_file_come_out_in_order(threads: int) -> None:
    flow = flow_of(False, threads=threads)
    started = [start(feed, flow, 0, 60), *(start(work, flow) for _ in range(threads))]
    assert results(flow) == list(range(60))
    for thread in started:
        thread.join(5)
    assert flow.dropped == 0


def test_nothing_grows_while_nobody_writes() -> None:
    flow = flow_of(False)
    offered: list[int] = []

    def reader() -> None:
        while flow.offer(0, frame(len(offered))):
            offered.append(1)

    started = [start(reader), start(work, flow), start(work, flow)]
    time.sleep(0.1)
    assert len(offered) == DEPTH + 2 + DEPTH  # read ahead, one per thread, results that wait
    flow.stop()
    assert results(flow) == list(range(2 + DEPTH))
    for thread in started:
        thread.join(5)


def test_a_result_is_handed_over_though_no_other_frame_ever_comes() -> None:
    flow = flow_of(True)
    started = start(work, flow)
    flow.offer(0, frame(7))
    began = time.monotonic()
    assert flow.next_result() == 7
    assert time.monotonic() - began < 1
    flow.written()
    flow.stop()
    assert flow.next_result() is None
    started.join(5)


def test_a_live_source_keeps_the_newest_frame_until_somebody_is_free() -> None:
    flow = flow_of(True, threads=1)
    for index in range(10):
        assert flow.offer(0, frame(index))
    ticket = flow.take()
    assert ticket is not None
    assert ticket.frame.index == 9
    assert flow.dropped == 9
    flow.stop()


def test_live_frames_that_come_too_late_are_left_out() -> None:
    flow = flow_of(True, threads=1, too_old=lambda one: one.index < 2)
    taken: list[int] = []
    thread = start(lambda: taken.append(flow.take().frame.index))  # type: ignore[union-attr]
    flow.offer(0, frame(1))
    time.sleep(0.05)
    assert not taken
    flow.offer(0, frame(2))
    thread.join(5)
    assert taken == [2]
    assert flow.dropped == 1


def test_sources_take_turns() -> None:
    flow = flow_of(False, False, False, threads=1)
    readers = [start(feed, flow, source, 20) for source in range(3)]
    order: list[int] = []
    while (ticket := flow.take()) is not None:
        order.append(ticket.source)
        flow.done(ticket, 0)
        flow.next_result()
        flow.written()
        time.sleep(0.002)
    for thread in readers:
        thread.join(5)
    assert [order.count(source) for source in range(3)] == [20] * 3
    for end in range(9, 45):
        counts = [order[:end].count(source) for source in range(3)]
        assert max(counts) - min(counts) <= 2


def test_an_error_in_the_network_keeps_what_is_before_it_and_nothing_behind() -> None:
    flow = flow_of(False, threads=3)
    reader = start(feed, flow, 0, 3)
    first, second, third = (flow.take() for _ in range(3))
    assert first is not None
    assert third is not None
    flow.done(third, 3)
    flow.fail(ValueError("broken"), second)
    flow.done(first, 1)
    assert results(flow) == [1]
    assert isinstance(flow.error, ValueError)
    assert flow.take() is None
    reader.join(5)


def test_to_abandon_waits_for_nothing() -> None:
    flow = flow_of(False, threads=3)
    reader = start(feed, flow, 0, 3)
    first, _hangs, third = (flow.take() for _ in range(3))
    assert first is not None
    assert third is not None
    flow.done(first, 1)
    flow.done(third, 3)
    flow.abandon(TimeoutError())
    assert results(flow) == [1]
    reader.join(5)


def test_one_source_that_breaks_lets_the_others_go_on() -> None:
    flow = flow_of(False, False, threads=1)
    started = [start(feed, flow, 1, 5), start(work, flow)]
    flow.read_out(ValueError("gone"))
    assert results(flow) == list(range(5))
    assert isinstance(flow.error, ValueError)
    for thread in started:
        thread.join(5)


def test_so_many_frames_and_no_more() -> None:
    flow = flow_of(False, max_frames=4)
    started = [start(feed, flow, 0, 50), start(work, flow), start(work, flow)]
    assert results(flow) == [0, 1, 2, 3]
    for thread in started:
        thread.join(5)
