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
    while tickets := flow.take():
        time.sleep(random.random() / 500)
        for ticket in tickets:
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
    assert flow.dropped == [0]


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
    (ticket,) = flow.take()
    assert ticket.frame.index == 9
    assert flow.dropped == [9]
    flow.stop()


def test_live_frames_that_come_too_late_are_left_out() -> None:
    flow = flow_of(True, threads=1, too_old=lambda one: one.index < 2)
    taken: list[int] = []
    thread = start(lambda: taken.append(flow.take()[0].frame.index))
    flow.offer(0, frame(1))
    time.sleep(0.05)
    assert not taken
    flow.offer(0, frame(2))
    thread.join(5)
    assert taken == [2]
    assert flow.dropped == [1]


def test_sources_take_turns() -> None:
    flow = flow_of(False, False, False, threads=1)
    readers = [start(feed, flow, source, 20) for source in range(3)]
    order: list[int] = []
    while tickets := flow.take():
        (ticket,) = tickets
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
    first, second, third = (flow.take()[0] for _ in range(3))
    flow.done(third, 3)
    flow.fail(ValueError("broken"), second)
    flow.done(first, 1)
    assert results(flow) == [1]
    assert isinstance(flow.error, ValueError)
    assert flow.take() == []
    reader.join(5)


def test_to_abandon_waits_for_nothing() -> None:
    flow = flow_of(False, threads=3)
    reader = start(feed, flow, 0, 3)
    first, _hangs, third = (flow.take()[0] for _ in range(3))
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
    assert isinstance(flow.source_error, ValueError)
    for thread in started:
        thread.join(5)


def test_so_many_frames_and_no_more() -> None:
    flow = flow_of(False, max_frames=4)
    started = [start(feed, flow, 0, 50), start(work, flow), start(work, flow)]
    assert results(flow) == [0, 1, 2, 3]
    for thread in started:
        thread.join(5)


def test_a_batch_is_what_is_there_of_the_sources_in_turn() -> None:
    flow = flow_of(False, False, threads=1, batch=3)
    flow.offer(1, frame(0))
    (only,) = flow.take()  # never waits for a full batch
    flow.done(only, 0)
    flow.next_result()
    flow.written()
    for index in range(3):
        flow.offer(0, frame(index))
        flow.offer(1, frame(1 + index))
    assert [(one.source, one.frame.index) for one in flow.take()] == [(0, 0), (1, 1), (0, 1)]
    assert [(one.source, one.frame.index) for one in flow.take()] == [(1, 2), (0, 2)]  # room for two more results
    assert flow.dropped == [0, 0]
    flow.stop()


def test_a_batch_of_live_sources_has_the_newest_frame_of_each() -> None:
    flow = flow_of(True, True, True, threads=1, batch=4)
    for index in range(5):
        for source in (0, 2):
            flow.offer(source, frame(index))
    assert [(one.source, one.frame.index) for one in flow.take()] == [(0, 4), (2, 4)]
    assert flow.dropped == [4, 0, 4]
    flow.stop()


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_of_files_come_out_in_order(threads: int) -> None:
    flow = flow_of(False, threads=threads, batch=4)
    started = [start(feed, flow, 0, 101), *(start(work, flow) for _ in range(threads))]
    assert results(flow) == list(range(101))
    for thread in started:
        thread.join(5)


def test_a_file_does_not_starve_a_camera_while_the_outputs_are_slow() -> None:
    flow = flow_of(False, True, threads=2)
    ended = threading.Event()

    def camera() -> None:
        index = 0
        while not ended.wait(0.002) and flow.offer(1, frame(1000 + index)):
            index += 1

    def reader() -> None:
        while flow.offer(0, frame(0)):
            pass

    started = [start(camera), start(reader), start(work, flow), start(work, flow)]
    written: list[int] = []
    while len(written) < 60:
        time.sleep(0.005)  # slower than the network
        result = flow.next_result()
        assert result is not None
        written.append(result)
        flow.written()
    flow.stop()
    results(flow)
    ended.set()
    for thread in started:
        thread.join(5)
    assert 20 <= sum(result >= 1000 for result in written) <= 40


def test_what_is_left_out_makes_no_hole() -> None:
    flow = flow_of(False, threads=1, batch=2)
    got: list[int] = []
    started = [start(feed, flow, 0, 5), start(lambda: got.extend(results(flow)))]
    while tickets := flow.take():
        for ticket in tickets:
            flow.done(ticket, None if ticket.number in (0, 3, 4) else ticket.number)
    for thread in started:
        thread.join(5)
    assert got == [1, 2]


def test_a_source_that_is_closed_while_it_reads_has_not_failed() -> None:
    flow = flow_of(False, threads=1)
    flow.stop()
    flow.read_out(OSError("closed"))
    assert flow.source_error is None


def test_an_error_behind_what_was_given_ends_it_all_the_same() -> None:
    flow = flow_of(False, threads=1)
    reader = start(feed, flow, 0, 1)
    (ticket,) = flow.take()
    flow.done(ticket, 1)
    assert flow.next_result() == 1
    flow.written()
    flow.fail(ValueError("late"), ticket)
    assert flow.next_result() is None
    reader.join(5)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_it_ends_and_keeps_the_order(seed: int) -> None:
    """Sources of both kinds, batches, frames left out, and an end of any kind at any time."""
    chance = random.Random(seed)
    live = [chance.random() < 0.5 for _ in range(chance.randrange(1, 4))]
    threads, batch = chance.randrange(1, 4), chance.choice((1, 1, 2, 4))
    flow = flow_of(*live, threads=threads, batch=batch, max_frames=chance.choice((None, None, 7)))
    ends = [flow.stop, flow.abandon, lambda: flow.fail(ValueError("a sink")), lambda: None]
    end, fails_at, leaves_out = chance.choice(ends), chance.choice((None, None, 9)), chance.choice((1000, 3))

    def network() -> None:
        own = random.Random(chance.random())
        while tickets := flow.take():
            assert len(tickets) <= batch
            time.sleep(own.random() / 1000)
            if fails_at is not None and tickets[0].number >= fails_at:
                flow.fail(ValueError("the network"), tickets[0])
                return
            for ticket in tickets:
                flow.done(ticket, None if ticket.number % leaves_out == 1 else ticket.number)

    got: list[int] = []
    started = [start(feed, flow, source, chance.randrange(30)) for source in range(len(live))]
    started += [start(network) for _ in range(threads)] + [start(lambda: got.extend(results(flow)))]
    time.sleep(chance.random() / 30)
    end()
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()
    left_out = {number for number in range(1000) if number % leaves_out == 1}
    assert got == [number for number in range(got[-1] + 1 if got else 0) if number not in left_out]
    assert fails_at is None or not got or got[-1] < fails_at + batch
