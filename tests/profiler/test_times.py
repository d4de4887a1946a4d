"""Turns, rounds and frames in flight, by a clock that only moves when a session says so."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from random import Random

import pytest

from tests.cuda.fake_cuda import FakeDevice
from tests.cuda.fake_engine import SPEC, FakeEngine
from tests.profiler.doubles import Clock, GpuSession, Session, find, pictures, runner
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.errors import DataError
from trt_blendmask.profiler import times
from trt_blendmask.profiler.differences import compare_times
from trt_blendmask.profiler.report import ModelProfile
from trt_blendmask.profiler.times import LONGER, MIN_ROUNDS, ROUNDS, Runner, measure_throughput, take_turns
from trt_blendmask.runtime.model import Model


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def timed(runners: list[Runner], duration: float = 3.0, warmup: float = 0.0) -> list[float]:
    shares: list[float] = []
    take_turns(runners, pictures(), duration, warmup, lambda _words, share: shares.append(share))
    return shares


def profile_of(one: Runner) -> ModelProfile:
    return ModelProfile(one.label, "", "", "", "", (64, 96), None, 0, one.times, one.rounds)


def test_models_take_turns_in_changing_order(clock: Clock) -> None:
    order: list[str] = []
    runners = [runner(name, Session(clock, lambda _: 0.2, name, order=order)) for name in ("a", "b", "c")]  # type: ignore[arg-type]
    timed(runners)
    turns = [order[k : k + 3] for k in range(6, len(order), 3)]  # after two frames of each to warm up
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(map(tuple, turns))) > 3
    assert [one.times["host"] for one in runners] == [pytest.approx([200.0] * len(turns))] * 3
    assert [one.rounds["network"] for one in runners] == [list(range(len(turns)))] * 3


def test_all_get_the_same_time(clock: Clock) -> None:
    runners = [runner("fast", Session(clock, lambda _: 0.005)), runner("slow", Session(clock, lambda _: 0.05))]
    shares = timed(runners)
    spent = [sum(one.times["host"]) / 1e3 for one in runners]
    assert spent == pytest.approx([3.0, 3.0], rel=0.25)
    assert len(set(runners[0].rounds["host"])) == pytest.approx(ROUNDS, rel=0.35)
    assert shares == sorted(shares)
    assert shares[-1] > 0.95


def test_a_slow_model_has_its_rounds_all_the_same(clock: Clock) -> None:
    slow = runner("slow", Session(clock, lambda _: 2.0))
    timed([slow], duration=0.5)
    assert slow.times["host"] == pytest.approx([2000.0] * MIN_ROUNDS)


def test_warm_up_and_the_first_frame_of_a_turn_do_not_count(clock: Clock) -> None:
    """Frames that follow another model's, or come first, take ten times as long here."""
    last: list[object] = []

    def seconds(name: str, slow: float) -> float:
        cold = last != [name]
        last[:] = [name]
        return slow if cold else 0.01

    runners = [runner(name, Session(clock, lambda _, name=name: seconds(name, 0.1))) for name in ("a", "b")]  # type: ignore[misc]
    timed(runners, warmup=0.2)
    for one in runners:
        assert one.times["host"] == pytest.approx([10.0] * len(one.times["host"]))


def test_drift_makes_no_difference_and_a_slower_model_does(clock: Clock) -> None:
    """The whole machine becomes half as fast while they run."""

    def drifting(factor: float) -> Session:
        return Session(clock, lambda _: 0.02 * factor * (1 + clock.now / 6))

    same = [runner("a", drifting(1.0)), runner("b", drifting(1.0)), runner("c", drifting(1.1))]
    timed(same)
    equal, slower = (compare_times(profile_of(same[0]), profile_of(one), "network") for one in same[1:])
    assert equal is not None
    assert slower is not None
    assert equal.ratio == pytest.approx(1, abs=0.005)
    assert not equal.differs
    assert slower.ratio == pytest.approx(1.1, abs=0.01)
    assert slower.differs


FOR_EVER = 1e9


@pytest.mark.parametrize(
    ("scatter", "until", "expected"), [(0.01, FOR_EVER, 3), (3.0, FOR_EVER, 3 * LONGER), (0.6, 12.0, 9)]
)
def test_where_times_scatter_the_turns_go_on(clock: Clock, scatter: float, until: float, expected: float) -> None:
    """Until the noise is small, but not for ever."""
    random = Random(0)

    def seconds(_: int) -> float:
        return 0.1 * (1 + (scatter * random.random() if clock.now < until else 0))

    runners = [runner(name, Session(clock, seconds)) for name in ("a", "b")]
    told: list[str] = []
    take_turns(runners, pictures(), 3.0, 0.0, lambda words, _share: told.append(words))
    spent = [sum(one.times["host"]) / 1e3 for one in runners]
    assert spent == pytest.approx([expected] * 2, rel=0.25)
    assert (told[-1] == "timing in turns") == (expected == 3)


def test_the_noise_of_slow_models_is_not_looked_at_after_every_round(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(times, "noise_of", lambda *_: looks.append(clock.now) or 1.0)
    timed([runner("slow", Session(clock, lambda _: 1.0))], duration=4.0)
    assert all(later - before >= 4 for before, later in itertools.pairwise(looks))
    assert len(looks) > 3


def test_a_failing_model_drops_out(clock: Clock) -> None:
    good, bad = Session(clock, lambda _: 0.02), Session(clock, lambda _: 0.02)
    runners = [runner("good", good), runner("bad", bad)]
    bad.raises = DataError("It broke. Mend it.")
    timed(runners)
    assert runners[1].error == "It broke. Mend it"
    assert not runners[0].error
    assert len(runners[0].times["host"]) > 50
    measure_throughput(runners[1], pictures(), 0.1)
    assert runners[1].throughput is None


def test_parts_of_a_frame_on_a_gpu(clock: Clock) -> None:
    one = runner("engine", GpuSession(clock, lambda _: 0.005))
    timed([one])
    expected = {"gpu": 4.75, "h2d": 0.5, "compute": 4.0, "d2h": 0.25, "enqueue": 0.125}
    assert {key: set(one.times[key]) for key in expected} == {key: {ms} for key, ms in expected.items()}
    assert Counter(map(len, one.times.values())) == {len(one.times["host"]): 7}
    assert len(set(one.rounds["gpu"])) == pytest.approx(ROUNDS, rel=0.35)  # what the parts take is reckoned with


def test_an_engine_on_the_double_of_a_gpu() -> None:
    """The real session over it; it proves nothing of the times, which are those of Python."""
    device = FakeDevice(integrated=False)
    session = TensorRtSession(FakeEngine(device), device)  # type: ignore[arg-type]
    one = Runner("engine", Model(session, SPEC), session)
    timed([one], duration=0.1)
    measure_throughput(one, pictures(), 0.1)
    session.close()
    assert not one.error
    assert set(one.times) == {"host", "network", "gpu", "h2d", "compute", "d2h", "enqueue"}
    assert all(ms >= 0 for times in one.times.values() for ms in times)
    assert one.throughput is not None
    assert one.throughput.in_flight == 2
    assert not device.live, "something was not freed"


def test_the_host_s_time_holds_more_than_the_network_s(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    one = runner("a", Session(clock, lambda _: 0.01))
    letterbox, collect = one.model.letterbox, one.model.collect

    def slow_letterbox(image: object) -> object:
        clock.now += 0.002
        return letterbox(image)  # type: ignore[arg-type]

    def slow_collect(*found: object) -> object:
        clock.now += 0.003
        return collect(*found)  # type: ignore[arg-type]

    monkeypatch.setattr(one.model, "letterbox", slow_letterbox)
    monkeypatch.setattr(one.model, "collect", slow_collect)
    timed([one])
    assert one.times["network"] == pytest.approx([10.0] * len(one.times["network"]))
    assert one.times["host"] == pytest.approx([15.0] * len(one.times["host"]))


def test_frames_in_flight() -> None:
    """By the real clock: threads that sleep overlap."""
    import time

    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
    lock, at_work, seen_at_once = threading.Lock(), [0], [0]

    def finds(images: object) -> dict[str, object]:
        with lock:
            at_work[0] += 1
            seen_at_once.append(at_work[0])
        asleep(images)
        with lock:
            at_work[0] -= 1
        return find(images)

    asleep = _asleep(0.02)
    session = Session(clock, lambda _: 0.0, finds=finds)
    one = runner("a", session)
    measure_throughput(one, pictures(), 0.5)
    seen = one.throughput
    assert seen is not None
    assert (seen.in_flight, seen.frames) == (2, session.frames)
    assert seen.frames_per_s == pytest.approx(seen.frames / seen.seconds)
    assert max(seen_at_once) == 2
    assert one.in_flight is not None
    assert one.in_flight[1] - one.in_flight[0] == pytest.approx(seen.seconds, abs=0.1)
    assert one.in_flight[1] <= time.perf_counter()
    assert not one.times


def _asleep(seconds: float):  # type: ignore[no-untyped-def]
    import time

    def finds(images: object) -> dict[str, object]:
        time.sleep(seconds)
        return find(images)

    return finds


def test_ctrl_c_waits_for_the_frames_in_flight() -> None:
    """Their sessions are closed next."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
    session = Session(clock, lambda _: 0.0, finds=_asleep(0.1))
    ctrl_c = threading.Timer(0.15, os.kill, [os.getpid(), signal.SIGINT])
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        measure_throughput(runner("a", session), pictures(), 30.0)
    ctrl_c.join()
    frames = session.frames
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("in flight")]
    assert frames == session.frames < 20


def test_turns_of_a_long_measurement_stay_short(clock: Clock) -> None:
    one = runner("a", Session(clock, lambda _: 0.1))
    take_turns([one], pictures(), 60.0, 0.0, lambda _words, _share: None)
    assert max(end - begin for begin, end in one.turns) < 1.2
    assert len(one.turns) >= 54
