"""Runs one command line in a forked child that is watched, and says what was wrong with how it behaved."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECONDS, PATIENCE = 10.0, 40.0  # of processor time; of the clock, on a machine that does other things as well
MEMORY_MB = 1024
SENTENCE = re.compile(r"error\[(\d+)\]: \S.{20,1500}\n")
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "os.symlink")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Case:
    """One command line (its files are in the current folder, its outputs belong in `out/`).

    Attributes:
        codes: the exit codes that are right besides 65; 0 says that the damage need not matter.
    """

    name: str
    argv: tuple[str, ...]
    files: dict[str, bytes] = field(repr=False)
    codes: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Outcome:
    """How it went; `faults` is empty when all demands were met."""

    number: int
    case: Case
    code: int
    cpu_s: float
    rss_mb: float
    stderr: str
    faults: tuple[str, ...]


def run_all(cases: Iterable[tuple[int, Case]], root: Path, jobs: int) -> Iterator[Outcome]:
    """Outcomes as they come, `jobs` children at a time; each in a folder of its own in `root`."""
    running: dict[int, _Child] = {}
    for number, case in cases:
        while len(running) >= jobs:
            yield from _reap(running)
        child = _Child(number, case, root / str(number))
        running[child.pid] = child
    while running:
        yield from _reap(running)


def _reap(running: dict[int, _Child]) -> Iterator[Outcome]:
    for pid, child in list(running.items()):
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            del running[pid]
            yield child.judge(os.waitstatus_to_exitcode(status), usage)
        else:
            child.watch()
    time.sleep(0.004)


class _Child:
    def __init__(self, number: int, case: Case, room: Path) -> None:
        self.number, self.case, self.room, self.cut_short = number, case, room, ""
        self.here = room / "here"
        self.here.mkdir(parents=True)
        for name, data in case.files.items():
            (self.here / name).write_bytes(data)
        (room / "tmp").mkdir()
        (room / "outside.bin").write_bytes(bytes(1 << 16))  # what a path out of the folder could reach
        self.before = _listing(room)
        self.started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _perform(case, room)

    def watch(self) -> None:
        """End what runs away, before it takes the machine with it."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            if pages * resource.getpagesize() > 1.5 * MEMORY_MB * 2**20:
                self.cut_short = "memory"
        if time.monotonic() - self.started > PATIENCE:
            self.cut_short = "time"
        if self.cut_short:
            os.kill(self.pid, signal.SIGKILL)

    def judge(self, code: int, usage: resource.struct_rusage) -> Outcome:
        cpu_s, rss_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        stderr = (self.room / "stderr").read_bytes().decode(errors="replace")
        audit = (self.room / "audit").read_text(errors="replace").splitlines()
        faults = [*audit, *self._wrong_end(code, stderr), *self._wrong_files(code)]
        if cpu_s > SECONDS or self.cut_short == "time":
            faults.append(f"hang: {cpu_s:.1f} s of processor time, {time.monotonic() - self.started:.0f} s in all")
        if rss_mb > MEMORY_MB or self.cut_short == "memory":
            faults.append(f"memory: {rss_mb:.0f} MB")
        _remove(self.room)
        return Outcome(self.number, self.case, code, cpu_s, rss_mb, stderr, tuple(faults))

    def _wrong_end(self, code: int, stderr: str) -> list[str]:
        if code < 0:
            frames = re.findall(r"File .*", (self.room / "crash").read_text(errors="replace"))
            return [] if self.cut_short else [f"crash: {signal.Signals(-code).name} in {' < '.join(frames[:4])}"]
        if code == 0 and 0 in self.case.codes:
            return [f"success, but it said: {stderr[:300]}"] if stderr else []
        if code not in self.case.codes | {65}:
            return [f"exit code {code}: {stderr[-300:]}"]
        said = SENTENCE.fullmatch(stderr)
        return [] if said and int(said[1]) == code else [f"exit code {code} without its one sentence: {stderr[:300]}"]

    def _wrong_files(self, code: int) -> list[str]:
        after = _listing(self.room)
        out = {name for name in after if name.startswith("here/out/")}
        strangers = {name for name in after if after[name] != self.before.get(name)} - out
        gone = set(self.before) - set(after)
        faults = [f"file touched outside the output: {name}" for name in sorted(strangers | gone)]
        left = out if code else {name for name in out if Path(name).name.startswith(".")}
        return faults + [f"left behind: {name}" for name in sorted(left) if not self.cut_short]


def _perform(case: Case, room: Path) -> None:
    """In the child: run the command line as the program would, and never return."""
    code = 1
    try:
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(room / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _forbid(room, os.open(room / "audit", os.O_WRONLY | os.O_CREAT))
        faulthandler.enable(file=os.open(room / "crash", os.O_WRONLY | os.O_CREAT))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(room / "here")
        tempfile.tempdir = str(room / "tmp")  # may be used, but must be empty in the end
        from trt_blendmask.cli import main

        code = main(case.argv)
    except SystemExit as end:  # argparse
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _forbid(room: Path, report: int) -> None:
    """Note each file opened for writing outside `room`, and each program or connection that is begun."""
    inside = (str(room), "/dev/null", "out/", ".")

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        bad = event if event in FORBIDDEN else ""
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            path = arguments[0]
            place = os.path.realpath(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
            bad = f"wrote {place!r}" if place and not str(place).startswith(inside[:2]) else ""
        if bad:
            os.write(report, f"forbidden: {bad} {str(arguments)[:100]}\n".encode())

    sys.addaudithook(hook)


def _listing(room: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file in `room`, apart from what the sandbox keeps there."""
    files = (file for file in room.rglob("*") if not file.is_dir() or file.is_symlink())
    own = {"stdout", "stderr", "audit", "crash"}
    stats = {str(file.relative_to(room)): file.lstat() for file in files}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items() if name not in own}


def _remove(room: Path) -> None:
    for path in sorted(room.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    room.rmdir()
