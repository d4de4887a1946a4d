"""Clocks, temperatures, watts and the load of other processes while models are timed, as far as the machine tells."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from trt_blendmask.doctor.look import GPU_CLOCKS, GPU_UNIT
from trt_blendmask.doctor.machine import Machine
from trt_blendmask.profiler.nvml import Nvml
from trt_blendmask.profiler.report import Readings, Span
from trt_blendmask.runtime.board import read_board

HZ = 10.0
GPU_POWER = "GPU W"
WHOLE = ("VDD_IN W", "VIN W", GPU_POWER)  # series counted as energy, in order of preference
_COUNTERS = {  # rise when something slows the machine down
    "/sys/class/hwmon/hwmon*/oc*_event_cnt": "over-current",
    "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count": "heat (CPU)",
}
_COOLING = "/sys/class/thermal/cooling_device*"
_SLOWS = re.compile(r"cpu|gpu|processor|devfreq|powerclamp|throttle|alert", re.I)  # others: fans, radios, offsets
_PER_MHZ = {"CPU": 1e3, "GPU": 1e6}  # kHz and Hz


@dataclass
class Watcher:
    """Reads the sensors `HZ` times a second in a thread of its own, from `with` to its end.

    Attributes:
        slowed_by: what slowed the machine down meanwhile, in words.
        others_cores, stolen_cores: cores that other processes used on average of those that this process may use, and
            that the host of a virtual machine took away; None where Linux does not tell.
    """

    machine: Machine = field(default_factory=Machine)
    nvml: Nvml = field(default_factory=Nvml)
    slowed_by: set[str] = field(default_factory=set)
    others_cores: float | None = None
    stolen_cores: float | None = None

    def __enter__(self) -> Watcher:
        self._began = time.perf_counter()
        self._at: list[float] = []
        self._rows: list[dict[str, float]] = []
        self._clocks = _clock_files(self.machine)
        self._counters = {file: words for pattern, words in _COUNTERS.items() for file in self.machine.find(pattern)}
        self._before = {file: self.machine.read(file) for file in self._counters}
        self._cooling = {
            f"{place}/cur_state": kind
            for place in self.machine.find(_COOLING)
            if _SLOWS.search(kind := self.machine.read(f"{place}/type"))
        }
        self._load = read_load(self.machine)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="readings", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for file, words in self._counters.items():
            if self.machine.read(file) != self._before[file]:
                self.slowed_by.add(words)
        now = read_load(self.machine)
        if self._load and now and now.wall_s > self._load.wall_s:
            wall = now.wall_s - self._load.wall_s
            others = (now.busy_s - self._load.busy_s) - (now.own_s - self._load.own_s)
            self.others_cores = max(0.0, others / wall)
            self.stolen_cores = (now.stolen_s - self._load.stolen_s) / wall

    def readings(self) -> Readings:
        """All that was read."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        series = {name: [row.get(name) for row in self._rows] for name in names}
        power = next((name for name in WHOLE if name in series), "")
        return Readings(tuple(at - self._began for at in self._at), series, power)

    def spans(self, times: Sequence[tuple[float, float]]) -> dict[str, Span]:
        """Of each series the readings within `times`, (begin, end) by `time.perf_counter`."""
        inside = [
            row for at, row in zip(self._at, self._rows, strict=False) if any(low <= at <= high for low, high in times)
        ]
        spans = {}
        for name in dict.fromkeys(name for row in inside for name in row):
            values = [row[name] for row in inside if name in row]
            spans[name] = Span(min(values), sum(values) / len(values), max(values))
        return spans

    def _watch(self) -> None:
        while True:
            self._at.append(time.perf_counter())
            self._rows.append(self._row())
            self.slowed_by |= self.nvml.slowed_by()
            for file, kind in self._cooling.items():
                if (self.machine.number(file) or 0) > 0:
                    self.slowed_by.add(f"heat ({kind})")
            if self._stop.wait(1 / HZ):
                return

    def _row(self) -> dict[str, float]:
        clocks = {
            f"{unit} MHz": value / _PER_MHZ[unit]
            for unit, file in self._clocks.items()
            if (value := self.machine.number(file)) is not None
        }
        board = read_board(self.machine.root)
        celsius = {f"{zone} C": value for zone, value in board.celsius.items()}
        watts = {f"{rail} W": value for rail, value in board.watts.items()}
        return {**clocks, **celsius, **watts, **self.nvml.read()}


@dataclass(frozen=True)
class Load:
    """Seconds of the cores that this process may use, since the machine started: busy, taken by a virtual machine's
    host; of this process; by the clock on the wall."""

    busy_s: float
    stolen_s: float
    own_s: float
    wall_s: float


def read_load(machine: Machine) -> Load | None:
    """Now; None where Linux does not tell."""
    try:
        ours, per_s = {f"cpu{core}" for core in os.sched_getaffinity(0)}, os.sysconf("SC_CLK_TCK")
    except (AttributeError, ValueError, OSError):
        return None
    rows = [line.split() for line in machine.read("/proc/stat").splitlines()]
    ticks = [[int(value) for value in row[1:9]] for row in rows if row and row[0] in ours and len(row) > 8]
    if not ticks:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = sum(sum(row[:3]) + row[5] + row[6] for row in ticks) / per_s
    return Load(busy, sum(row[7] for row in ticks) / per_s, time.process_time(), time.perf_counter())


def _clock_files(machine: Machine) -> dict[str, str]:
    """The file that tells the clock of a unit now, in kHz for the CPU and in Hz for a Jetson's GPU."""
    gpus = [place for place in machine.find(GPU_CLOCKS) if GPU_UNIT.search(place)]
    files = {"CPU": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"}
    if gpus:
        files["GPU"] = f"{gpus[0]}/cur_freq"
    return {unit: file for unit, file in files.items() if machine.read(file)}
