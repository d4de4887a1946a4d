"""Builds that are stopped, killed, or run at the same time, by the command line itself."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.engines import tiny
from tests.engines.conftest import GPU
from trt_blendmask.engines.lock import hold
from trt_blendmask.engines.passport import matching_passport
from trt_blendmask.engines.timing_cache import read_entries

Calls = Callable[[], list[str]]
Start = Callable[..., "subprocess.Popen[str]"]
ROOT = Path(__file__).resolve().parents[2]
COMMAND = f"""
import sys
sys.path[:0] = {str(ROOT)!r}, sys.argv.pop(1)
from trt_blendmask.cli import main
from trt_blendmask.engines import flavor, operation
from trt_blendmask.engines.device import Device
operation.parity.measure = lambda *_: "pretended"
flavor.find_device = operation.find_device = lambda: {GPU!r}
sys.exit(main(["build", *sys.argv[1:]]))
"""


@pytest.fixture
def start(calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a build with the fake TensorRT, which does as its first argument says."""
    assert calls() == []

    def start(how: str, *arguments: str) -> subprocess.Popen[str]:
        monkeypatch.setenv("FAKE_TENSORRT", how)
        command = [sys.executable, "-c", COMMAND, str(tmp_path / "path"), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "model.onnx")


def wait(until: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def builders(folder: Path) -> int:
    """Processes that build for this test."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_bytes()
            found += b"engines.child" in words and bytes(folder) in words
    return found


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def whole(engine: Path) -> bool:
    """Whether the engine, if there is one, has its own passport."""
    if not engine.exists():
        return True
    return matching_passport(engine, hashlib.sha256(engine.read_bytes()).hexdigest()) is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_the_next_step(start: Start, calls: Calls, model: Path, tmp_path: Path, number: int) -> None:
    process = start("slow", str(model))
    wait(lambda: "build_serialized_network" in calls())
    process.send_signal(number)
    began = time.monotonic()
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words.count("\n")) == (130, 1)
    assert time.monotonic() - began < 4
    assert (builders(tmp_path), hidden(tmp_path)) == (0, [])
    assert not model.with_suffix(".engine").exists()
    assert read_entries(tmp_path / "cache" / "trt_blendmask" / "timings.cache"), "what was timed is kept"


def test_stopped_though_it_does_not_listen(start: Start, calls: Calls, model: Path, tmp_path: Path) -> None:
    process = start("deaf", str(model))
    wait(lambda: "build_serialized_network" in calls())
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)  # at once, please
    assert process.wait(timeout=3) == 130
    assert (builders(tmp_path), hidden(tmp_path)) == (0, [])


def test_killed_leaves_nothing_running_and_is_swept(start: Start, calls: Calls, model: Path, tmp_path: Path) -> None:
    assert start("", str(model)).wait() == 0
    before = model.with_suffix(".engine").read_bytes()
    process = start("slow", str(model))
    wait(lambda: calls().count("build_serialized_network") == 2)
    process.kill()
    process.wait()
    wait(lambda: builders(tmp_path) == 0, 5)  # by itself it would build for 10 s
    assert model.with_suffix(".engine").read_bytes() == before
    assert len(hidden(tmp_path)) == 1
    assert start("", str(model)).wait() == 0
    assert hidden(tmp_path) == []


def test_a_reader_that_goes_away_is_no_fault_of_the_output(start: Start, model: Path, tmp_path: Path) -> None:
    process = start("", str(model), "-v")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 74
    assert (hidden(tmp_path), model.with_suffix(".engine").exists()) == ([], False)


def test_waits_for_the_other_and_takes_its_engine(start: Start, calls: Calls, model: Path, tmp_path: Path) -> None:
    lock = tmp_path / "cache" / "trt_blendmask" / "build.lock"
    with hold(lock):
        waiting = start("", str(model))
        assert waiting.stdout is not None
        assert "waiting" in waiting.stdout.readline()
        assert calls() == []
    assert waiting.wait() == 0
    assert calls().count("build_serialized_network") == 1
    with hold(lock):
        waiting = start("", str(model))
        assert waiting.stdout is not None
        assert "waiting" in waiting.stdout.readline()
    assert waiting.wait() == 0
    assert calls().count("build_serialized_network") == 1, "it is there already"
