"""How far a build is: what the child process knows, what the user is told, and how long earlier builds took."""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.files import atomic_output

_REMEMBERED = 200


@dataclass(frozen=True)
class Progress:
    """What a build is doing.

    Attributes:
        phase: in TensorRT's words; "" before the first. done of steps: within the phase; 0 of 0 where it has no steps.
        seconds: since the build began. total_seconds: how long it will take, by earlier builds; None: nobody knows.
        peak_mib: most memory of the machine that the building process has held, MiB.
        note: something that the user should know, once; "" mostly. log: a warning or error of TensorRT's, likewise.
    """

    phase: str
    done: int = 0
    steps: int = 0
    seconds: float = 0.0
    total_seconds: float | None = None
    peak_mib: int = 0
    note: str = ""
    log: str = ""


class BuildState:
    """Where the builder is, written by TensorRT's threads and read by the one that reports.

    Attributes:
        stop: set it, and the builder ends at its next step.
    """

    def __init__(self, note: Callable[[str], None], say: Callable[[str], None]) -> None:
        """`note` is for the user; `say` for who wants to know more (what TensorRT logs)."""
        self.stop = threading.Event()
        self.note, self.say = note, say
        self._lock = threading.Lock()
        self._phases: list[tuple[str, int, int]] = []

    def enter(self, phase: str, steps: int = 0) -> None:
        with self._lock:
            self._phases.append((phase, 0, steps))

    def step(self, phase: str, done: int) -> None:
        with self._lock:
            self._phases = [(p, done if p == phase else d, s) for p, d, s in self._phases]

    def leave(self, phase: str) -> None:
        """Phases overlap: TensorRT may finish an outer one before an inner one."""
        with self._lock:
            self._phases = [entry for entry in self._phases if entry[0] != phase]

    def now(self) -> tuple[str, int, int]:
        """The innermost phase, its steps that are done, and how many it has."""
        with self._lock:
            return self._phases[-1] if self._phases else ("", 0, 0)


class BuildTimes:
    """How long builds took on this machine, in a small file; without it there is no ETA, and nothing else is lost."""

    def __init__(self, path: Path, where: str) -> None:
        """`where` names what times depend on: flavor, version, GPU."""
        self._path, self._where = path, where

    def expected(self, onnx_sha256: str, nodes: int) -> float | None:
        """Seconds that a build will take: as the last one of this ONNX, else by the nodes of other ones."""
        rows = [row for row in self._rows() if row["where"] == self._where]
        same = [row["seconds"] for row in rows if row["onnx"] == onnx_sha256]
        if same:
            return float(same[-1])
        return nodes * statistics.median(row["seconds"] / row["nodes"] for row in rows) if rows else None

    def remember(self, onnx_sha256: str, nodes: int, seconds: float) -> None:
        row = {"where": self._where, "onnx": onnx_sha256, "nodes": max(1, nodes), "seconds": round(seconds, 1)}
        kept = [r for r in self._rows() if (r["where"], r["onnx"]) != (self._where, onnx_sha256)]
        with suppress(TrtBlendMaskError), atomic_output(self._path) as temporary:
            temporary.write_text(json.dumps([*kept, row][-_REMEMBERED:]))

    def _rows(self) -> list[dict[str, Any]]:
        try:
            rows = json.loads(self._path.read_text()) if self._path.stat().st_size < 1 << 20 else []
            return [row for row in rows if row["seconds"] >= 0 and row["nodes"] >= 1 and row["where"] and row["onnx"]]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return []
