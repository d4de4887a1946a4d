"""The machine as `doctor` sees it: files below a root folder, programs on a PATH, a Python to ask libraries with."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_blendmask.doctor.ask import MISSING, Answer, ask
from trt_blendmask.doctor.child import MARK, PROBES

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_CHILD = "import sys; sys.path[0] = {parent!r}; from trt_blendmask.doctor.child import main; main(sys.argv[-1])"
_MAX_FILE = 1 << 16
_USUAL = ("/usr/sbin", "/usr/local/cuda/bin", "/usr/lib/wsl/lib")  # not on everybody's PATH
_GPU = "name,compute_cap,driver_version,memory.total,power.limit,clocks.gr,clocks.max.gr"
_DEBIAN = ("nvidia-jetpack", "nvidia-l4t-core", "libnvinfer8", "libnvinfer10", "libnvinfer11", "python3-libnvinfer")
COMMANDS = {
    "uname": ("uname", "-srm"),
    "nvidia-smi": ("nvidia-smi", f"--query-gpu={_GPU}", "--format=csv,noheader,nounits"),
    "nvcc": ("nvcc", "--version"),
    "nvpmodel": ("nvpmodel", "-q"),
    "jetson_clocks": ("jetson_clocks", "--show"),
    "dpkg-query": ("dpkg-query", "-W", "-f", r"${Package}\t${Version}\t${db:Status-Status}\n", *_DEBIAN),
}


def usual_path() -> str:
    """The PATH of this process, and after it the folders where NVIDIA's programs usually lie."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_USUAL))


@dataclass(frozen=True)
class Machine:
    """Where to look.

    Attributes:
        root: folder below which /etc, /proc and /sys lie. path: where programs are looked for.
        python: the interpreter whose libraries count.
        command_s, library_s: how long a program, and a library that is loaded, may take to answer, in seconds.
    """

    root: Path = Path("/")
    path: str = field(default_factory=usual_path)
    python: str = sys.executable
    command_s: float = 8.0
    library_s: float = 20.0

    def read(self, place: str) -> str:
        """The beginning of the file at the absolute path `place`; "" where it cannot be read."""
        try:
            with (self.root / place.lstrip("/")).open("rb") as stream:
                return stream.read(_MAX_FILE).decode("utf-8", "replace").strip("\0\n ")
        except OSError:
            return ""

    def number(self, place: str) -> float | None:
        """What the file at the absolute path `place` holds, where that is a number."""
        try:
            return float(self.read(place))
        except ValueError:
            return None

    def find(self, pattern: str) -> list[str]:
        """The absolute paths that match."""
        try:
            found = sorted(self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []
        return [f"/{path.relative_to(self.root)}" for path in found]

    def ask_all(self) -> Answers:
        """Put all questions at once; it takes no longer than the slowest may."""
        env = {**os.environ, "PATH": self.path, "LC_ALL": "C"}
        stop = threading.Event()
        child = [self.python, "-c", _CHILD.format(parent=str(_PACKAGE_PARENT))]
        with ThreadPoolExecutor(len(COMMANDS) + len(PROBES)) as pool:
            try:
                programs = {
                    name: pool.submit(ask, command, env, self.command_s, stop) for name, command in COMMANDS.items()
                }
                libraries = {
                    probe.__name__: pool.submit(ask, [*child, probe.__name__], env, self.library_s, stop)
                    for probe in PROBES
                }
                return Answers(
                    {name: future.result() for name, future in programs.items()},
                    {name: _facts(future.result()) for name, future in libraries.items()},
                )
            finally:
                stop.set()  # Ctrl-C: what still runs is ended


@dataclass(frozen=True)
class Answers:
    """Of the programs in `COMMANDS`, and of the libraries: what each said, under "problem" why it said no more."""

    programs: dict[str, Answer]
    libraries: dict[str, dict[str, Any]]

    def out(self, name: str) -> str:
        """What a program printed; "" where it failed."""
        answer = self.programs[name]
        return "" if answer.problem else answer.out.strip()

    def problem(self, name: str) -> str:
        """Why a program that is there gave no answer; "" where it did, or is not installed."""
        problem = self.programs[name].problem
        return "" if problem == MISSING else problem


def _facts(answer: Answer) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for line in answer.out.splitlines():
        if line.startswith(MARK):
            try:
                facts |= json.loads(line.removeprefix(MARK))
            except (ValueError, TypeError):
                continue
    return {**facts, "problem": answer.problem} if answer.problem else {"problem": "", **facts}
