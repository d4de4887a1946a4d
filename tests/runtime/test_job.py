"""A run under trouble: a network that hangs or gives no numbers, several sources, parts of frames, deadlines."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from trt_blendmask.cli import main
from trt_blendmask.errors import DataError, TrtBlendMaskError, UsageError
from trt_blendmask.runtime import job
from trt_blendmask.runtime.deadline import WINDOW, Deadline
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.notify import Notify
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.sources import Source
from trt_blendmask.runtime.tally import MAX_BROKEN
from trt_blendmask.structures import Frame

from .conftest import BOXES, SLOTS

Maker = Callable[..., Path]
CAMERA = "synthetic:conveyor?live=1&fps=30&size=128x72"
# The command, with a network that takes its time: a double for a driver that does not come back.
SLOW_COMMAND = """
import sys, time
from trt_blendmask.runtime.model import Model
infer, count = Model.infer, 0
def slow(self, images):
    global count
    count += 1
    time.sleep({seconds} if count > {after} else 0)
    return infer(self, images)
Model.infer = slow
from trt_blendmask.__main__ import entry
sys.argv[0] = "trt-blendmask"
entry()
"""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def command(script: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def wait_for(path: Path, lines: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and (not path.exists() or path.read_text().count("\n") < lines):
        time.sleep(0.02)


def test_a_network_that_hangs_ends_the_run_with_its_sentence(stub_model: Maker, tmp_path: Path) -> None:
    lines, save = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    script = SLOW_COMMAND.format(seconds=1000, after=20)
    words = ("run", str(stub_model()), CAMERA, "--json", str(lines), "--save", str(save), "--watchdog", "1")
    process = command(script, *words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 70, err
    assert "but it hangs" in err
    assert "Traceback" not in err
    assert len(rows(lines)) >= 15
    with av.open(str(save)) as container:
        assert len(list(container.decode(video=0))) == len(rows(lines))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_network_hangs(stub_model: Maker, tmp_path: Path, number: int) -> None:
    lines, save = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    script = SLOW_COMMAND.format(seconds=1000, after=10)
    process = command(script, "run", str(stub_model()), CAMERA, "--json", str(lines), "--save", str(save))
    wait_for(lines, 10)
    time.sleep(0.2)  # now the next one hangs
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert time.monotonic() - began < 5
    assert "stopped early" in out
    with av.open(str(save)) as container:
        assert len(list(container.decode(video=0))) == len(rows(lines))


def test_a_second_signal_ends_it_at_once(stub_model: Maker, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    script = SLOW_COMMAND.format(seconds=1000, after=10)
    process = command(script, "run", str(stub_model()), CAMERA, "--json", str(lines))
    wait_for(lines, 10)
    time.sleep(0.2)  # now the next one hangs
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # it would take another second
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 0.5


def test_a_second_signal_shows_the_cursor_again() -> None:
    ours, theirs = pty.openpty()
    script = (
        "import signal\n"
        "from trt_blendmask.runtime.stop import StopSignals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with StopSignals():\n"
        "    for _ in range(2):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], stderr=theirs, check=False, timeout=60).returncode == 130
    os.close(theirs)
    assert os.read(ours, 100) == b"\x1b[?25h"
    os.close(ours)


def test_to_be_stopped_while_the_engine_loads_is_no_failure_to_systemd() -> None:
    unit = (Path(__file__).parents[2] / "samples/systemd/trt-blendmask.service").read_text()
    assert "SuccessExitStatus=130" in unit.splitlines()


def test_systemd_hears_of_it(stub_model: Maker, tmp_path: Path) -> None:
    address, lines = tmp_path / "notify", tmp_path / "out.jsonl"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        script = SLOW_COMMAND.format(seconds=0, after=0)
        process = command(
            script,
            *("run", str(stub_model()), CAMERA, "--json", str(lines)),
            NOTIFY_SOCKET=str(address),
            WATCHDOG_USEC="600000",
        )
        heard = [manager.recv(100) for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
        while heard[-1] != b"STOPPING=1":
            heard.append(manager.recv(100))
    assert heard[0] == b"READY=1"
    assert set(heard[1:-1]) == {b"WATCHDOG=1"}


def test_the_watchdog_is_not_fed_while_the_network_hangs(
    stub_model: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release, fed, closed = threading.Event(), [], []
    monkeypatch.setattr(Model, "close", closed.append)
    monkeypatch.setattr(Model, "infer", lambda *_: release.wait(20))
    monkeypatch.setattr(Notify, "alive", lambda _: fed.append(time.monotonic()))
    began = time.monotonic()
    with pytest.raises(TrtBlendMaskError, match="but it hangs"):
        run(stub_model(), CAMERA, json=tmp_path / "a.jsonl", options=RunOptions(hung_s=0.5))
    release.set()
    assert not closed  # a thread is still inside
    assert fed
    assert max(fed) - began < 1


def test_outputs_that_are_no_numbers(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    boxes = np.zeros((1, SLOTS, 4), np.float32)
    boxes[0, :3] = BOXES
    boxes[0, 1, 2] = np.nan
    model, lines, events = stub_model(outputs={"boxes": boxes}), tmp_path / "out.jsonl", Events()
    with pytest.raises(TrtBlendMaskError, match="10 frames in a row") as caught:
        run(model, clip(frames=40), json=lines, events=events)
    assert caught.value.exit_code == 70
    assert [len(row["detections"]) for row in rows(lines)] == [2] * MAX_BROKEN
    assert events.counters()["broken_outputs"] == 2  # at 1 and at 10
    report = run(model, clip(frames=9), json=lines)
    assert report.broken == 9
    assert "9 with outputs that are no numbers" in report.summary()


def test_every_so_many_frames(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    run(stub_model(), clip(frames=12), json=lines, options=RunOptions(every=5))
    assert [row["frame"] for row in rows(lines)] == [0, 5, 10]


def test_part_of_the_frame(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    whole, lines = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    run(stub_model(), clip(frames=1, wh=(96, 64)), json=whole)
    source = clip(frames=1, wh=(300, 200), name="large.mp4")
    run(stub_model(), source, json=lines, options=RunOptions(roi=(100, 50, 96, 64)))
    for one, other in zip(rows(whole)[0]["detections"][:1], rows(lines)[0]["detections"][:1], strict=True):
        np.testing.assert_allclose(np.array(other["bbox"]) - [100, 50, 0, 0], one["bbox"], atol=1e-3)
    assert rows(lines)[0]["frame_wh"] == [300, 200]
    with pytest.raises(UsageError, match="within the frame of 300 x 200"):
        run(stub_model(), source, json=lines, options=RunOptions(roi=(300, 0, 10, 10)))


def test_some_classes(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    lines = tmp_path / "out.jsonl"
    run(stub_model(), clip(frames=2), json=lines, options=RunOptions(classes=("nut",)))
    assert [[one["category_name"] for one in row["detections"]] for row in rows(lines)] == [["nut"]] * 2
    with pytest.raises(UsageError, match="did you mean 'bolt'"):
        run(stub_model(), clip(frames=2), json=lines, options=RunOptions(classes=("blot",)))


def test_several_sources(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:
    sources = [clip(frames=8, name="a.mp4"), clip(frames=12, name="b.mp4", wh=(200, 100))]
    save, lines = tmp_path / "out" / "v.mp4", tmp_path / "out" / "a.jsonl"
    report = run(stub_model(), sources, save, lines)
    assert report.frames == 20
    assert [path.name for path in report.outputs] == ["v-1.mp4", "v-2.mp4", "a.jsonl"]
    for number, (source, count, wh) in enumerate(zip(sources, (8, 12), ((160, 120), (200, 100)), strict=True), 1):
        own = [row for row in rows(lines) if row["source"] == str(source)]
        assert [row["frame"] for row in own] == list(range(count))
        with av.open(str(tmp_path / f"out/v-{number}.mp4")) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == count
        assert (frames[0].width, frames[0].height) == wh


def test_one_of_several_sources_that_breaks_lets_the_others_go_on(
    stub_model: Maker, clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken, lines, events = clip(frames=30), clip(frames=9, name="b.mp4"), tmp_path / "a.jsonl", Events()
    frames = job.Job._frames

    def breaking(self: job.Job, source: Source) -> Iterator[Frame]:
        for frame in frames(self, source):
            if source.name == str(broken) and frame.index == 3:
                raise DataError("It is broken.")
            yield frame

    monkeypatch.setattr(job.Job, "_frames", breaking)
    with pytest.raises(DataError, match="It is broken"):
        run(stub_model(), [whole, broken], json=lines, events=events)
    assert len(rows(lines)) == 33
    assert events.counters()["source_ended"] == 1


def test_the_age_of_live_frames_is_one_interval_and_the_inference(
    stub_model: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    infer = Model.infer

    def slow(self: Model, images: Any) -> Any:
        time.sleep(0.15)
        return infer(self, images)

    monkeypatch.setattr(Model, "infer", slow)
    report = run(stub_model(), CAMERA, json=tmp_path / "a.jsonl", max_frames=12)
    assert report.age_ms is not None
    assert report.age_ms[0] < 150 + 1000 / 30 + 60  # one frame more of waiting would add 150
    assert report.dropped > 5


def test_a_deadline_is_for_live_sources(stub_model: Maker, clip: Maker) -> None:
    with pytest.raises(UsageError, match="live source"):
        run(stub_model(), clip(), options=RunOptions(deadline_s=0.05))
    with pytest.raises(UsageError, match="add --deadline"):
        RunOptions(fallback="small.onnx")
    with pytest.raises(UsageError, match="leave out --classes"):
        RunOptions(classes=())


def test_a_deadline_that_the_model_cannot_hold_takes_the_fallback(
    stub_model: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    big, small = stub_model(), stub_model("small.onnx")
    infer, events = Model.infer, Events()

    def slow(self: Model, images: Any) -> Any:
        time.sleep(0.12 if self.path == big else 0)
        return infer(self, images)

    monkeypatch.setattr(Model, "infer", slow)
    options = RunOptions(deadline_s=0.1, fallback=small)
    run(big, CAMERA, json=tmp_path / "a.jsonl", max_frames=60, options=options, events=events)
    told = [event.text for event in events.history() if event.kind == "deadline"]
    assert any("best detections" in text for text in told)
    assert any("smaller model works now" in text for text in told)
    last = rows(tmp_path / "a.jsonl")[-5:]
    assert all(row["stage_ms"]["network"] < 100 for row in last)


def test_steps_of_a_deadline_up_and_back() -> None:
    events = Events()
    deadline = Deadline(0.1, True, events)

    def window(age_s: float) -> int:
        for _ in range(WINDOW):
            deadline.done(age_s, age_s)
        return deadline.step

    assert [window(0.2) for _ in range(3)] == [1, 2, 2]
    assert [window(0.08) for _ in range(20)] == [2] * 20  # between half and all of it: stays
    assert [window(0.04) for _ in range(5)] == [2, 2, 2, 2, 1]
    assert window(0.2) == 2  # had gone back too soon: twice as patient from now on
    assert [window(0.04) for _ in range(10)] == [2] * 9 + [1]
    assert any("nothing is left to leave out" in event.text for event in events.history())


def test_a_frame_is_left_out_only_where_a_fresh_one_would_be_in_time() -> None:
    events = Events()
    old, fresh = (Frame(np.zeros((2, 2, 3), np.uint8), captured_s=time.monotonic() - age_s) for age_s in (0.09, 0.0))
    for work_s, dropped in (
        (0.05, True),
        (0.5, False),
    ):  # work that takes longer than the deadline: to drop helps nobody
        deadline = Deadline(0.1, False, events)
        assert not deadline.too_old(old)  # nobody knows yet how long it takes
        for _ in range(WINDOW):
            deadline.done(work_s, work_s)
        assert deadline.too_old(old) is dropped
        assert not deadline.too_old(fresh) or work_s > 0.1


def test_that_frames_are_dropped_is_told_by_who_holds_no_lock() -> None:
    """`too_old` is asked under the lock of the flow: an event would write to a terminal that may take nothing."""
    events = Events()
    deadline = Deadline(0.1, False, events)
    for _ in range(WINDOW):
        deadline.done(0.05, 0.05)
    assert deadline.too_old(Frame(np.zeros((2, 2, 3), np.uint8), captured_s=time.monotonic() - 0.09))
    assert events.history() == ()
    deadline.done(0.05, 0.05)
    deadline.done(0.05, 0.05)
    assert [event.details["step"] for event in events.history()] == [0]
    assert "too late are dropped" in events.history()[0].text


def test_to_drop_frames_does_not_starve_the_run() -> None:
    """Where fresh frames come too late, too, some are let through all the same, and more is left out in the end."""
    deadline = Deadline(0.1, False, Events())
    for _ in range(WINDOW):
        deadline.done(0.09, 0.085)
    for _ in range(4 * WINDOW):
        if not deadline.too_old(Frame(np.zeros((2, 2, 3), np.uint8), captured_s=time.monotonic() - 0.02)):
            deadline.done(0.105, 0.085)
    assert deadline.step == 1


@pytest.mark.parametrize(
    ("option", "text"),
    [("--deadline", "50"), ("--deadline", "50 ms"), ("--roi", "1,2,3"), ("--roi", "1,2,0,4"), ("--every", "0")],
)
def test_options_that_do_not_do(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "model.onnx", "a.mp4", option, text])
    assert caught.value.code == 2
    assert f"argument {option}: expected" in capsys.readouterr().err
