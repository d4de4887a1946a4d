"""A source that breaks, on scripted connections: what is said, what is kept, and that nothing ever hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_blendmask.errors import DataError, SourceUnavailableError
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.sources import LiveOptions
from trt_blendmask.runtime.sources.decode import Shot
from trt_blendmask.runtime.sources.live import MAX_HUNG, LiveSource
from trt_blendmask.runtime.sources.reasons import REFUSED_PAUSE_S, loss_of
from trt_blendmask.runtime.sources.stamp import Stamp

from .conftest import until

pytestmark = pytest.mark.usefixtures("fast", "no_threads_left")
QUICK = LiveOptions(stale_s=0.2, open_s=0.2)
REFUSED = av.ConnectionRefusedError(111, "Connection refused")
ENDLESS = 10**9


class Fake:
    """A connection that brings `frames` pictures, `gap_s` apart, then ends, raises `error`, or hangs until released."""

    damaged = 0

    def __init__(
        self, frames: int, error: Exception | None = None, hang: threading.Event | None = None, gap_s: float = 0.01,
        lossless: bool = False, wh: tuple[int, int] = (32, 24), still: bool = False, pts: bool = True,
    ) -> None:  # fmt: skip
        self.fps, self.ends, self.lossless = 100.0, lossless, lossless
        self._frames, self._error, self._hang, self._gap_s = frames, error, hang, gap_s
        self._wh, self._still, self._pts, self.count, self.closed = wh, still, pts, 0, False
        self.heard_s = time.monotonic()

    def read(self) -> Shot | None:
        if self.count >= self._frames:
            if self._hang is not None:
                self._hang.wait(20)
            if self._error is not None:
                raise self._error
            return None
        time.sleep(self._gap_s)
        self.heard_s = time.monotonic()
        self.count += 1
        image = np.full((self._wh[1], self._wh[0], 3), 7 if self._still else self.count % 256, np.uint8)
        return Shot(image, 100 + self.count / 100 if self._pts else None, self.heard_s, self.count == 3)

    def close(self) -> None:
        self.closed = True


class Script:
    """Hands out the connections (or errors) of a list one after the other, the last for ever."""

    def __init__(self, *steps: Fake | Exception | Callable[[], Fake]) -> None:
        self._steps, self.calls = list(steps), 0

    def __call__(self, _left: threading.Event) -> Fake:
        step = self._steps[min(self.calls, len(self._steps) - 1)]
        self.calls += 1
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Fake) else step()


def kinds(events: Events) -> list[str]:
    return [event.kind for event in events.history()]


def lost(events: Events) -> list[str]:
    return [event.details["reason"] for event in events.history() if event.kind == "source_lost"]


def reader(source: LiveSource) -> Iterator[int]:
    return (frame.index for frame in source)


def test_a_break_is_named_and_mended() -> None:
    events = Events()
    script = Script(Fake(5), Fake(5, error=av.ConnectionResetError(104, "reset")), REFUSED, Fake(ENDLESS))
    source = LiveSource("cam", script, LiveOptions(stale_s=3), events)
    times = []
    for frame in source:
        times.append(frame.time_s)
        if source.state().reconnects >= 2 and source.state().kind == "LIVE" and len(times) > 14:
            break
    assert lost(events) == ["closed", "reset"]
    assert kinds(events).count("source_opened") == 3
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] < 5  # the presentation times begin at 101 s in every connection
    since = source.state().since_wall_s
    assert abs(since - time.time()) < 5
    source.close()
    assert source.state().kind == "ENDED"


def test_no_new_picture_is_a_loss_and_a_hanging_read_is_left_behind() -> None:
    hang, events = threading.Event(), Events()
    source = LiveSource("cam", Script(Fake(3, hang=hang), lambda: Fake(ENDLESS)), QUICK, events)
    assert until(lambda: "source_lost" in kinds(events))
    assert lost(events) == ["stale"]
    event = next(e for e in events.history() if e.kind == "source_lost")
    assert 0.2 <= event.details["silent_s"] < 0.6
    assert until(lambda: source.state().kind == "LIVE")
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 2
    hang.set()


def test_close_is_quick_whatever_hangs() -> None:
    hang = threading.Event()

    def hang_while_opening(_left: threading.Event) -> Fake:
        hang.wait(20)
        raise REFUSED

    for connect in (hang_while_opening, Script(Fake(0, hang=hang)), Script(Fake(2, hang=hang)), Script(REFUSED)):
        source = LiveSource("cam", connect, QUICK, Events())
        time.sleep(0.1)
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 1.9
        assert list(source) == []
    hang.set()


def test_lines_that_hang_are_bounded() -> None:
    hang, script = threading.Event(), Script(lambda: Fake(1, hang=hang))
    source = LiveSource("cam", script, QUICK, Events())
    assert until(lambda: script.calls == MAX_HUNG)
    assert until(lambda: "still hang" in source.state().reason)
    assert script.calls == MAX_HUNG
    hang.set()
    assert until(lambda: script.calls > MAX_HUNG)
    source.close()


def test_newest_frame_only() -> None:
    source = LiveSource("cam", Script(Fake(ENDLESS)), LiveOptions(), Events())
    frames = iter(source)
    first = next(frames)
    time.sleep(0.5)
    second = next(frames)
    assert second.index - first.index > 15
    assert source.dropped == second.index - first.index - 1
    assert time.monotonic() - second.captured_s < 0.1
    assert abs(time.time() - second.wall_s) < 0.2
    assert second.source == "cam"
    source.close()


def test_a_recording_is_kept_whole_and_ends() -> None:
    source = LiveSource("-", Script(Fake(40, gap_s=0, lossless=True)), QUICK, Events(), live=False)
    numbers = []
    for frame in source:
        numbers.append(frame.index)
        if frame.index == 10:
            time.sleep(0.5)  # longer than stale_s: who is slow is not lost
    assert numbers == list(range(40))
    assert (source.dropped, source.live, source.state().kind) == (0, False, "ENDED")
    source.close()


def test_retries_are_bounded_where_asked() -> None:
    script = Script(REFUSED)
    source = LiveSource("rtsp://cam/1", script, LiveOptions(max_retries=3), Events())
    with pytest.raises(SourceUnavailableError, match=r"rtsp://cam/1.*connection refused after 3 more tries"):
        list(source)
    assert script.calls == 4
    assert source.state().kind == "NO SIGNAL"  # not "ENDED", which is well
    assert "connection refused after 3 more tries" in source.state().reason
    source.close()
    once = LiveSource("rtsp://cam/1", script, LiveOptions(max_retries=1), Events())
    with pytest.raises(SourceUnavailableError, match="after 1 more try\\."):
        list(once)
    once.close()
    with pytest.raises(SourceUnavailableError, match="connection refused"):
        LiveSource("cam", script, LiveOptions(wait=False), Events())
    LiveSource("cam", Script(Fake(ENDLESS)), LiveOptions(wait=False), Events()).close()


def test_pauses_grow_to_a_bound_and_are_told_only_when_they_do() -> None:
    events, moments = Events(), []

    def refuse(_left: threading.Event) -> Fake:
        moments.append(time.monotonic())
        raise REFUSED

    source = LiveSource("cam", refuse, QUICK, events)
    assert until(lambda: len(moments) == 8)
    source.close()
    gaps = np.diff(moments)
    assert (gaps[-2:] > 0.28).all()
    assert kinds(events) == ["source_waiting"] * 5
    told = [event.details["retry_s"] for event in events.history()]
    assert told == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5])  # a tenth of what cameras get


def test_a_wrong_password_is_not_tried_again_soon() -> None:
    script = Script(av.HTTPUnauthorizedError(1, "Unauthorized"))
    source = LiveSource("cam", script, QUICK, Events())
    time.sleep(0.3)
    assert script.calls == 1
    assert "password" in source.state().reason
    source.close()
    assert loss_of(av.HTTPUnauthorizedError(1, "")).pause_s == REFUSED_PAUSE_S >= 30


def test_a_fault_of_ours_reaches_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveSource, "_watch", lambda *_: 1 / 0)
    source = LiveSource("cam", Script(REFUSED), QUICK, Events())
    with pytest.raises(ZeroDivisionError):
        list(source)
    source.close()


def test_an_error_of_the_user_ends_it() -> None:
    source = LiveSource("cam", Script(DataError("no video")), QUICK, Events())
    with pytest.raises(DataError, match="no video"):
        list(source)
    source.close()


def test_damage_and_size_changes_are_counted_and_told() -> None:
    events = Events()
    script = Script(Fake(30), Fake(ENDLESS, wh=(64, 24)))
    source = LiveSource("cam", script, LiveOptions(stale_s=3), events)  # a busy machine must not lose the first one
    assert until(lambda: "format_changed" in kinds(events))
    changed = next(e for e in events.history() if e.kind == "format_changed")
    assert changed.details == {"source": "cam", "from_wh": [32, 24], "to_wh": [64, 24]}
    assert until(lambda: source.corrupt == 2)
    assert kinds(events).count("corrupt_frames") == 1
    source.close()


def test_a_picture_that_never_changes_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_blendmask.runtime.sources.stamp.FROZEN_S", 0.3)
    events = Events()
    source = LiveSource("cam", Script(Fake(ENDLESS, still=True)), QUICK, events)
    assert until(lambda: "frozen_image" in kinds(events), 2)
    time.sleep(0.35)
    assert kinds(events).count("frozen_image") == 1
    source.close()


def test_times_without_a_clock_are_those_of_arrival() -> None:
    stamp, image = Stamp("cam", Events().publish), np.zeros((24, 32, 3), np.uint8)
    assert [stamp.live(Shot(image, None, s, False), s == 50).time_s for s in (50, 50.1, 51)] == pytest.approx(
        [0, 0.1, 1]
    )


def test_a_jump_of_the_cameras_clock_is_not_followed() -> None:
    stamp, image = Stamp("cam", Events().publish), np.zeros((24, 32, 3), np.uint8)
    pts = [7.0, 7.04, 90000.0, 90000.04, 3.0]  # forwards, then back
    arrivals = [50.0, 50.05, 50.08, 50.11, 50.16]
    times = [
        stamp.live(Shot(image, p, a, False), i == 0).time_s for i, (p, a) in enumerate(zip(pts, arrivals, strict=True))
    ]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=0.02)


def live_times(shots: Iterable[tuple[float, float, bool]]) -> np.ndarray:
    """Of (presentation time, arrival, whether it is the first of a line)."""
    stamp, image = Stamp("cam", Events().publish), np.zeros((24, 32, 3), np.uint8)
    return np.array([stamp.live(Shot(image, pts, arrival, False), first).time_s for pts, arrival, first in shots])


@pytest.mark.parametrize("drift", [2e-4, -2e-4, 1.0])  # a quartz, and a camera that counts twice
def test_a_clock_that_runs_wrong_is_held_to_the_arrival(drift: float) -> None:
    arrivals = 50 + np.arange(50_000)  # a frame a second: fourteen hours
    times = live_times((i * (1 + drift), s, i == 0) for i, s in enumerate(arrivals.tolist()))
    assert np.diff(times).min() > 0.09
    assert np.abs(times - (arrivals - 50)).max() < (1.1 if drift == 1 else 0.1)


def test_what_comes_in_a_heap_keeps_its_order_in_time() -> None:
    heap = [(i / 25, 50 + i / 5000, i == 0) for i in range(250)]  # ten seconds at once, as some servers begin
    again = [(7 + i / 25, 50.6 + i / 25, i == 0) for i in range(500)]
    times = live_times(heap + again)
    assert np.diff(times).min() >= 1e-4 * 0.999
    assert (np.diff(times) < 0.003).sum() <= 1  # none but the first of the new line
    assert times[-1] == pytest.approx(0.6 + 499 / 25, abs=0.05)


def test_lateness_on_the_way_does_not_bend_the_times() -> None:
    late = np.random.default_rng(1).exponential(0.05, 2000)
    times = live_times((i / 25, 50 + i / 25 + late[i], i == 0) for i in range(2000))
    assert np.diff(times).min() > 0.03
    assert np.diff(times[500:]).std() < 0.001


def test_a_camera_that_sets_its_clock_back_a_little_goes_on() -> None:
    pts = [*np.arange(100) / 25, *(np.arange(100, 200) / 25 - 3)]
    times = live_times((p, 50 + i / 25, i == 0) for i, p in enumerate(pts))
    assert times == pytest.approx(np.arange(200) / 25, abs=0.05)


def test_a_broadcast_that_stops_is_no_recording() -> None:
    events, left_over = Events(), [Fake(40, gap_s=0, lossless=True) for _ in range(3)]
    source = LiveSource("cam", Script(Fake(5), *left_over, Fake(ENDLESS)), LiveOptions(stale_s=3), events)
    frames = iter(source)
    seen = [next(frames) for _ in range(8)]
    assert [one.count for one in left_over] == [0, 0, 0]
    assert all(one.closed for one in left_over)
    assert lost(events) == ["closed"]
    assert seen[-1].index - seen[0].index < 30
    assert (source.live, source.state().kind, source.state().reconnects) == (True, "LIVE", 1)
    source.close()


@pytest.mark.parametrize("kind", ["source_opened", "corrupt_frames", "format_changed"])
def test_a_listener_that_hangs_does_not_keep_the_state_from_others(kind: str) -> None:
    events, heard, release = Events(), threading.Event(), threading.Event()

    def hanging(event: Event) -> None:
        if event.kind == kind:
            heard.set()
            release.wait(10)

    events.subscribe(hanging)
    source = LiveSource("cam", Script(Fake(5), Fake(ENDLESS, wh=(64, 24))), LiveOptions(stale_s=3), events)
    assert heard.wait(10)
    began = time.monotonic()
    assert source.state().kind == "LIVE"
    assert source.corrupt >= 0
    assert time.monotonic() - began < 1
    release.set()
    source.close()


def test_a_listener_that_fails_is_dropped_and_counted() -> None:
    events, heard = Events(), []

    def broken(_event: Event) -> None:
        raise ValueError

    events.subscribe(broken)
    events.subscribe(lambda event: heard.append(event.kind))
    events.publish("a", "A.")
    events.publish("b", "B.", {"n": 1})
    assert heard == ["a", "b"]
    assert events.counters() == {"a": 1, "b": 1, "listener_failed": 1}
    assert events.history()[1].details == {"n": 1}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["frames", "end", "refuse", "hang", "crash"]), min_size=1, max_size=6),
    st.floats(0, 0.3),
    st.booleans(),
)
def test_any_order_of_troubles_ends_when_told(steps: list[str], seconds: float, takes: bool) -> None:
    hang = threading.Event()
    made = {
        "frames": lambda: Fake(4, gap_s=0.002), "end": lambda: Fake(0), "refuse": REFUSED,
        "hang": lambda: Fake(1, hang=hang), "crash": ZeroDivisionError(),
    }  # fmt: skip
    source = LiveSource("cam", Script(*(made[step] for step in steps)), LiveOptions(0.05, 0.05), Events())
    thread = threading.Thread(target=lambda: list(source), daemon=True)
    if takes:
        thread.start()
    time.sleep(seconds)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1.9
    hang.set()
    if takes:
        thread.join(2)
        assert not thread.is_alive()
