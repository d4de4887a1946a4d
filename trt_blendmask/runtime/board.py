"""Temperatures and power, where the kernel tells them (Linux' thermal zones and hwmon; Jetson's INA3221)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trt_blendmask.doctor.machine import Machine


@dataclass(frozen=True)
class Board:
    """What was read; empty where there is no such sensor.

    Attributes:
        celsius: temperature by zone. watts: power by rail; on a Jetson "VDD_IN" is the whole module.
    """

    celsius: dict[str, float] = field(default_factory=dict)
    watts: dict[str, float] = field(default_factory=dict)


def read_board(root: Path = Path("/")) -> Board:
    """Read the sensors below `root`/sys now; one that cannot be read is left out."""
    machine = Machine(root)
    celsius: dict[str, float] = {}
    for zone in machine.find("/sys/class/thermal/thermal_zone*"):
        name, value = machine.read(f"{zone}/type"), machine.number(f"{zone}/temp")
        if name and value is not None and -60_000 < value < 200_000:  # a zone that is switched off says -256000
            celsius[name.removesuffix("-thermal")] = value / 1e3
    watts: dict[str, float] = {}
    for place in machine.find("/sys/class/hwmon/hwmon*"):
        for label in machine.find(f"{place}/in*_label"):  # INA3221: volts and amperes of each rail
            rail = label.removesuffix("_label")
            millivolts = machine.number(f"{rail}_input")
            milliamperes = machine.number(f"{_current_of(rail)}_input")
            if (name := machine.read(label)) and millivolts is not None and milliamperes is not None:
                watts[name] = millivolts * milliamperes / 1e6
        microwatts = machine.number(f"{place}/power1_input")
        if microwatts is not None:
            watts[machine.read(f"{place}/name") or "power"] = microwatts / 1e6
    return Board(celsius, watts)


def _current_of(rail: str) -> str:
    folder, _, name = rail.rpartition("/")
    return f"{folder}/{name.replace('in', 'curr', 1)}"
