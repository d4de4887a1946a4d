"""Outputs that hang, slow ones and failing ones: the others get everything, and the end waits for none of them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from trt_blendmask.errors import OutputError, OutputNameError, UsageError
from trt_blendmask.runtime import pipeline
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording.lines import JsonLines
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sinks import OfOneSource, Sinks
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import Detections, Frame

Maker = Callable[..., Path]
CAMERA = "synthetic:conveyor?live=1&fps=30&size=128x72"
F_SETPIPE_SZ = 1031  # Linux; Python 3.10 has it as fcntl.F_SETPIPE_SZ


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    end_s = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < end_s:
        time.sleep(0.01)
    assert threading.active_count() == before


def result(index: int, source: int = 0) -> FrameResult:
    none = np.zeros(0, np.float32)
    found = Detections(none.reshape(0, 4), none, none.astype(np.int32), none.reshape(0, 1, 1), (4, 4))
    frame = Frame(np.zeros((4, 4, 3), np.uint8), index)
    return FrameResult(frame, found, SourceState("LIVE", 0.0), source_number=source)


class FakeSink:
    """Notes what it gets; `write` and `close` wait for their gates, and raise `error` behind them."""

    draws = False

    def __init__(self, name: str) -> None:
        self.name, self.got, self.closed = name, [], 0
        self.written: list[Path] = []
        self.write_gate, self.close_gate = threading.Event(), threading.Event()
        self.write_gate.set()
        self.close_gate.set()
        self.error: BaseException | None = None
        self.threads: set[str] = set()

    def check(self) -> None:
        pass

    def write(self, one: FrameResult) -> None:
        self.threads.add(threading.current_thread().name)
        self.write_gate.wait()
        if self.error:
            raise self.error
        self.got.append(one.frame.index)

    def close(self) -> None:
        self.close_gate.wait()
        self.closed += 1


def two() -> tuple[FakeSink, FakeSink, Events, Sinks]:
    one, other, events = FakeSink("one"), FakeSink("other"), Events()
    return one, other, events, Sinks([one, other], events)


def test_what_was_checked_is_closed_where_a_later_check_fails() -> None:
    one, other = FakeSink("one"), FakeSink("other")

    def check() -> None:
        raise OutputNameError("Expected a file name.")

    other.check = check  # type: ignore[method-assign]
    with pytest.raises(OutputNameError):
        Sinks([one, other], Events())
    assert (one.closed, other.closed) == (1, 0)


def test_outputs_are_closed_where_the_run_does_not_begin(
    stub_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def refuse(*_: object) -> None:
        raise UsageError("Expected another option.")

    monkeypatch.setattr(JsonLines, "close", lambda sink: closed.append(sink.name))
    monkeypatch.setattr(pipeline, "Job", refuse)
    with pytest.raises(UsageError):
        pipeline.run(stub_model(), CAMERA, json=tmp_path / "a.jsonl")
    assert closed == [str(tmp_path / "a.jsonl")]


def test_all_get_everything_in_a_thread_of_their_own() -> None:
    one, other, events, sinks = two()
    for index in range(20):
        sinks.write(result(index))
    sinks.close()
    assert one.got == other.got == list(range(20))
    assert (one.closed, other.closed) == (1, 1)
    assert one.threads == {"output"}
    assert not sinks.failures
    assert not events.history()


def test_a_camera_goes_on_without_an_output_that_hangs_until_it_is_back() -> None:
    one, other, events, sinks = two()
    one.write_gate.clear()
    for index in range(5):
        sinks.write(result(index), 0.15, waits=False)
    assert other.got == list(range(5))
    assert [event.kind for event in events.history()] == ["output_hangs"]
    assert "one" in events.history()[0].text
    one.write_gate.set()
    time.sleep(0.05)
    for index in range(5, 8):
        sinks.write(result(index), 0.15, waits=False)
    sinks.close()
    assert one.got == [0, 5, 6, 7]
    assert [event.kind for event in events.history()] == ["output_hangs", "output_back"]
    assert events.history()[-1].details["missed"] == 4
    assert not sinks.failures


def test_a_file_waits_for_an_output_that_hangs() -> None:
    one, other, events, sinks = two()
    one.write_gate.clear()
    threading.Timer(0.5, one.write_gate.set).start()
    for index in range(3):
        sinks.write(result(index), 0.15, waits=True)
    sinks.close()
    assert one.got == other.got == [0, 1, 2]
    assert [event.kind for event in events.history()] == ["output_hangs", "output_back"]


@pytest.mark.parametrize("gate", ["write_gate", "close_gate"])
def test_the_end_leaves_behind_what_hangs_and_says_so(gate: str) -> None:
    one, other, events, sinks = two()
    sinks.write(result(0))
    getattr(one, gate).clear()
    began = time.monotonic()
    threading.Timer(0.05, sinks.hurry).start()
    sinks.write(result(1))
    sinks.write(result(2))
    sinks.close()
    assert time.monotonic() - began < 1.8
    assert other.got == [0, 1, 2]
    assert other.closed == 1
    assert sinks.failures == ["Cannot finish 'one': it hangs."]
    assert events.history()[-1].details["output"] == "one"
    getattr(one, gate).set()  # and when it comes back, it is closed all the same
    end_s = time.monotonic() + 2
    while not one.closed and time.monotonic() < end_s:
        time.sleep(0.01)
    assert one.closed == 1


def test_one_that_fails_after_it_hung_is_never_written_again() -> None:
    one, other, _, sinks = two()
    one.write_gate.clear()
    sinks.write(result(0), 0.05, waits=False)
    one.error = OSError(28, "No space left on device")
    one.write_gate.set()
    time.sleep(0.05)
    for index in range(1, 4):
        sinks.write(result(index), 0.05, waits=False)
    sinks.close()
    assert one.got == []
    assert one.closed == 1
    assert other.got == [0, 1, 2, 3]
    assert sinks.failures == ["Cannot write 'one': No space left on device."]


def test_a_reader_that_leaves_ends_the_run_only_where_it_was_the_only_one() -> None:
    one, other, _, sinks = two()
    one.error = BrokenPipeError(32, "Broken pipe")
    for index in range(3):
        sinks.write(result(index))
    assert other.got == [0, 1, 2]
    assert sinks.failures == ["Cannot write 'one': Broken pipe."]
    other.error = BrokenPipeError(32, "Broken pipe")
    with pytest.raises(OutputError, match="Cannot write 'other': Broken pipe"):
        sinks.write(result(3))
    sinks.close()


@pytest.mark.parametrize("after_s", [0.0, 0.1])
@pytest.mark.parametrize("exit_on_failure", [False, True])
def test_a_reader_that_the_same_signal_ended_is_no_failure(after_s: float, exit_on_failure: bool) -> None:
    """It may be gone before this run has looked at its own signal."""
    one, other, events = FakeSink("one"), FakeSink("other"), Events()
    sinks = Sinks([one, other], events, exit_on_failure)
    one.error = BrokenPipeError(32, "Broken pipe")
    timer = threading.Timer(after_s, sinks.hurry)
    timer.start()
    for index in range(3):
        sinks.write(result(index))
    timer.join()
    sinks.close()
    assert (one.got, other.got) == ([], [0, 1, 2])
    assert (one.closed, other.closed) == (1, 1)
    assert not sinks.failures
    assert not events.history()


@pytest.mark.parametrize("signals", [True, False])
def test_the_video_is_whole_where_the_reader_of_the_lines_ends(
    stub_model: Maker, tmp_path: Path, signals: bool
) -> None:
    """By Ctrl-C, which a terminal sends to both; or because it crashed."""
    save = tmp_path / "out.mkv"
    words = [sys.executable, "-m", "trt_blendmask", "run", str(stub_model()), CAMERA, "--json", "-"]
    words += ["--save", str(save), "--max-frames", "60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(3):
            process.stdout.readline()
        if signals:
            process.send_signal(signal.SIGINT)
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait(30)
    with av.open(str(save)) as container:
        frames = len(list(container.decode(video=0)))
    if signals:
        assert process.returncode == 0, err
        assert "stopped early" in err.splitlines()[-1]
        assert "output stopped" not in err
        assert 3 <= frames < 60
    else:
        assert process.returncode == 74, err
        assert "60 frames in" in err
        assert "standard output: output stopped (Cannot write 'standard output': Broken pipe)" in err
        assert frames == 60


def test_each_source_has_its_own() -> None:
    sinks_of = [FakeSink(str(number)) for number in range(2)]
    sinks = Sinks([OfOneSource(sink, number) for number, sink in enumerate(sinks_of)], Events())
    for index in range(6):
        sinks.write(result(index, index % 2))
    sinks.close()
    assert [sink.got for sink in sinks_of] == [[0, 2, 4], [1, 3, 5]]


@contextmanager
def running(model: Path, source: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The command with JSON lines into a pipe with little room, that nobody reads."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, F_SETPIPE_SZ, 4096)
    words = [sys.executable, "-m", "trt_blendmask", "run", str(model), source, "--json", "-", "--score", "0", *more]
    try:
        yield subprocess.Popen(words, stdout=writes, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(reads)
        os.close(writes)


@pytest.mark.parametrize("source", [CAMERA, "file"])
def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end(
    stub_model: Maker, clip: Maker, tmp_path: Path, source: str
) -> None:
    save = tmp_path / "out.mkv"
    source = str(clip(frames=400)) if source == "file" else source
    with running(stub_model(), source, "--save", str(save)) as process:
        assert process.stderr is not None
        end_s, size = time.monotonic() + 30, -1
        while time.monotonic() < end_s and (not save.exists() or size != save.stat().st_size):
            size = save.stat().st_size if save.exists() else -1
            time.sleep(0.4)  # until it grows no more
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        err = process.stderr.read()
        process.wait(30)
        assert time.monotonic() - began < 2.5  # on a machine that has better to do
    assert process.returncode == 74, err
    assert "Cannot finish 'standard output': it hangs" in err.splitlines()[-1]
    assert "Traceback" not in err
    with av.open(str(save)) as container:
        assert len(list(container.decode(video=0))) > 3


def test_a_hung_output_of_a_camera_is_told_and_left_out(stub_model: Maker, tmp_path: Path) -> None:
    save = tmp_path / "out.mkv"
    more = ("--save", str(save), "--watchdog", "0.3", "--max-frames", "45")
    with running(stub_model(), CAMERA, *more) as process:
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(30)
    assert process.returncode == 74, err
    assert "standard output: output hangs, the run goes on without it" in err
    assert "45 frames in" in err
    with av.open(str(save)) as container:
        assert len(list(container.decode(video=0))) == 45


def test_what_is_no_exception_ends_the_run() -> None:
    one, _, _, sinks = two()
    one.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sinks.write(result(0))
    one.error = None
    sinks.close()
    assert one.closed == 1
