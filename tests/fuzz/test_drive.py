"""A short run of the driver, and that its judge notices what it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import trt_blendmask.cli
from tests.fuzz.sandbox import Case, run_all

DRIVE = Path(__file__).resolve().parent / "drive.py"


def test_a_short_run() -> None:
    done = subprocess.run(
        [sys.executable, str(DRIVE), "--seed", "7", "--cases", "40", "--jobs", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "0 failed" in done.stdout


def crash() -> int:
    os.abort()


def traceback() -> int:
    raise ValueError


def hang() -> int:
    while True:
        pass


def hog() -> int:
    return len(bytearray(b"x") * (1600 << 20)) * 0


def stray() -> int:
    Path("../stray.txt").write_text("x")
    return 0


def mute() -> int:
    return 65


def half() -> int:
    Path("out").mkdir()
    Path("out/half.onnx").write_text("x")
    os.write(2, b"error[65]: Expected something else than what came. Type another command.\n")
    return 65


@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        (crash, "crash: SIGABRT in"),
        (traceback, "exit code 1"),
        (hang, "hang"),
        (hog, "memory"),
        (stray, "outside the output: stray.txt"),
        (mute, "without its one sentence"),
        (half, "left behind: here/out/half.onnx"),
    ],
)
def test_the_judge_has_teeth(
    verb: Callable[[], int], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_blendmask.cli, "main", lambda _: verb())
    monkeypatch.setattr("tests.fuzz.sandbox.SECONDS", 0.5)
    monkeypatch.setattr("tests.fuzz.sandbox.PATIENCE", 2.0 if verb is hang else 30.0)  # a busy machine is no fault
    (outcome,) = run_all([(0, Case("a case", (), {"a.bin": b"x"}))], tmp_path, 1)
    assert any(fault in said for said in outcome.faults), outcome.faults
