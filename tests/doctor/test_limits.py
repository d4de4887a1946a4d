"""Nothing that a program or a library does may stop the doctor: hanging, crashing, printing without end, lying."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.doctor.trees import RTX, Tree, script
from trt_blendmask.doctor import examine
from trt_blendmask.doctor.ask import MAX_BYTES, MISSING, ask
from trt_blendmask.doctor.machine import Machine

ENV = {"PATH": "/usr/bin:/bin"}
SLOW = {
    "hangs": "sleep 60",
    "ignores signals": "trap '' TERM INT HUP; while :; do sleep 60; done",
    "prints without end": "yes",
    "closes its outputs and stays": "exec >&- 2>&-; sleep 60",
}


def run(folder: Path, body: str, limit_s: float = 0.6) -> tuple[str, str, float]:
    program, started = script(folder / "program", body), time.monotonic()
    answer = ask([str(program)], ENV, limit_s, threading.Event())
    return answer.out, answer.problem, time.monotonic() - started


@pytest.mark.parametrize("how", SLOW)
def test_a_limit_holds(how: str, tmp_path: Path) -> None:
    out, problem, took = run(tmp_path, SLOW[how])
    assert problem == "did not answer in 0.6 s"
    assert took < 3
    assert len(out) <= MAX_BYTES


def test_what_a_hanging_program_started_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    run(tmp_path, f"sleep 61 & echo $! > {mark}; wait")
    pid = int(mark.read_text())
    for _ in range(50):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


def test_an_answer_is_taken_though_a_child_keeps_the_pipe_open(tmp_path: Path) -> None:
    out, problem, took = run(tmp_path, "echo well; sleep 30 &", limit_s=10)
    assert (out, problem) == ("well\n", "")
    assert took < 3


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("kill -SEGV $$", "crashed (SIGSEGV)"),
        ("kill -ABRT $$", "crashed (SIGABRT)"),
        ("echo broken >&2; echo more >&2; exit 9", "failed with exit code 9: broken"),
        ("exit 3", "failed with exit code 3: it does not say why"),
    ],
)
def test_how_it_ended_is_told(body: str, problem: str, tmp_path: Path) -> None:
    assert run(tmp_path, body, limit_s=10)[1] == problem


def test_what_cannot_be_started(tmp_path: Path) -> None:
    assert ask([str(tmp_path / "none")], ENV, 1, threading.Event()).problem == MISSING
    (tmp_path / "text").write_text("no program")
    assert ask([str(tmp_path / "text")], ENV, 1, threading.Event()).problem.startswith("cannot be started")


def test_stopping_ends_a_question_early(tmp_path: Path) -> None:
    stop, program, started = threading.Event(), script(tmp_path / "program", "sleep 60"), time.monotonic()
    threading.Timer(0.2, stop.set).start()
    ask([str(program)], ENV, 30, stop)
    assert time.monotonic() - started < 3


def test_ctrl_c_does_not_wait_for_what_hangs(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvidia-smi", f"touch {tmp_path / 'asked'}; sleep 60")
    code = "from trt_blendmask.doctor import Machine, examine; examine(Machine(path={!r}, command_s=60, library_s=60))"
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    child = subprocess.Popen([sys.executable, "-c", code.format(path)], stderr=subprocess.DEVNULL)
    while not (tmp_path / "asked").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    child.wait(timeout=20)
    assert child.returncode != 0


def test_everything_hanging_at_once_costs_one_limit(tmp_path: Path) -> None:
    hanging = dict.fromkeys(("nvidia-smi", "uname", "nvpmodel", "jetson_clocks", "dpkg-query", "nvcc"), "sleep 60")
    machine = Tree(programs=hanging).plant(tmp_path, command_s=1, library_s=1)
    script(tmp_path / "python", "sleep 60")
    started = time.monotonic()
    report = examine(machine)
    assert time.monotonic() - started < 5
    assert report.facts.opencv.problem == "did not answer in 1 s"
    assert {"nvidia-smi-hangs", "no-opencv", "no-gpu"} <= {finding.code for finding in report.findings}


def test_a_hanging_nvidia_smi_takes_nothing_from_the_rest(tmp_path: Path) -> None:
    tree = Tree(RTX.files, {"nvidia-smi": "sleep 60"}, RTX.answers)
    report = examine(tree.plant(tmp_path, command_s=0.5))
    assert report.facts.driver.gpus[0].name == "NVIDIA GeForce RTX 4090"
    assert [finding.code for finding in report.findings] == ["nvidia-smi-hangs"]


def only_tensorrt(folder: Path, library_s: float) -> Machine:
    """A machine whose `tensorrt` is really imported, by this Python."""
    answers = {name: facts for name, facts in RTX.answers.items() if name != "tensorrt"}
    return replace(RTX, answers=answers).plant(folder / "machine", library_s=library_s)


MODULES = {
    "hangs": ("import time\ntime.sleep(60)", "did not answer in 2 s"),
    "aborts": ("import os\nos.abort()", "crashed (SIGABRT)"),
    "ends the process": ("import os\nos._exit(4)", "failed with exit code 4: it does not say why"),
    "lacks a library": ("raise ImportError('libgomp.so.1: no such file')", "libgomp.so.1: no such file"),
    "is another thing": ("", "the module tensorrt is another"),
    "is old": ("__version__ = '8.6.1'", "Expected TensorRT 10 or newer, got 8.6.1"),
}


@pytest.mark.parametrize("how", MODULES)
def test_a_tensorrt_that_misbehaves(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, problem = MODULES[how]
    (tmp_path / "tensorrt.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = examine(only_tensorrt(tmp_path, 2 if how == "hangs" else 30))
    full = report.facts.tensorrt[0]
    assert problem in full.problem
    assert (full.installed, full.usable) == (True, False)
    assert "tensorrt-broken" in {finding.code for finding in report.findings}


PLUGINS = {
    "crashes": ("import os\n        os.kill(os.getpid(), 11)", "crashed (SIGSEGV)"),
    "fails": ("raise RuntimeError('undefined symbol')", "cannot load it"),
}


@pytest.mark.parametrize("how", PLUGINS)
def test_a_plugin_that_misbehaves(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is a double for our error handling and nothing else."""
    body, problem = PLUGINS[how]
    (tmp_path / "tensorrt.py").write_text(
        f"""
__version__ = "11.4.1"
class Registry:
    def get_creator(self, *_):
        return None
    def load_library(self, path):
        {body}
def get_plugin_registry():
    return Registry()
"""
    )
    library = tmp_path / "libtrt_blendmask.so"
    library.write_bytes(b"\x7fELF")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRT_BLENDMASK_PLUGIN", str(library))
    full = examine(only_tensorrt(tmp_path, 30)).facts.tensorrt[0]
    assert (full.usable, full.version, full.plugin) == (True, "11.4.1", how)
    assert problem in full.plugin_problem


def test_the_folder_one_works_in_is_not_imported_from(tmp_path: Path) -> None:
    for name in ("cv2", "json", "trt_blendmask"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    code = "from trt_blendmask.doctor import examine; print(examine().facts.opencv.problem or 'fine')"
    start = f"import sys; sys.path[:] = [p for p in sys.path if p]; {code}"
    out = subprocess.run([*command, "-c", start], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "fine"
