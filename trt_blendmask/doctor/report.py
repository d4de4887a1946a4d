"""The facts as lines for people, and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trt_blendmask import __version__
from trt_blendmask.doctor.facts import Clock, Facts, Finding, Gpu, Library, TensorRt
from trt_blendmask.layout import amount, labelled, wrapped

SCHEMA = 1
_PLUGIN = {
    "loads": "the plugin loads",
    "fails": "the plugin does not load",
    "crashes": "the plugin crashes it",
    "missing": "the plugin is not there",
}


@dataclass(frozen=True)
class Report:
    """What was found, and what will not work."""

    facts: Facts
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON values. A later `schema` may add keys, but rename none."""
        findings = [asdict(finding) for finding in self.findings]
        return {"schema": SCHEMA, "version": __version__, **asdict(self.facts), "findings": findings}

    def lines(self, width: int) -> list[str]:
        """For people; `width` as of `layout.labelled`."""
        lines = labelled(_rows(self.facts), width)
        for level, title in (
            ("stops", "What will not work here, and how to mend it"),
            ("risk", "What else to know"),
        ):
            told = [finding for finding in self.findings if finding.level == level]
            lines += ["", title] if told else []
            for finding in told:
                lines += _told(finding, width)
        return lines if self.findings else [*lines, "", "Found nothing that will not work here."]


def _told(finding: Finding, width: int) -> list[str]:
    """What is wrong and its mend: two paragraphs at a terminal, one line elsewhere."""
    mend = f"-> {finding.mend}" if finding.mend else ""
    if not width:
        return wrapped(f"{finding.what} {mend}".rstrip(), 0, "- ")
    return [*wrapped(finding.what, width, "- ", "  "), *(wrapped(mend, width, "  ", "     ") if mend else ())]


def _rows(facts: Facts) -> list[tuple[str, str]]:
    system, driver = facts.system, facts.driver
    where = ", in a container" if system.container else ""
    rows = [
        ("system", f"{_joined(system.name, system.kernel, system.architecture)}{where}"),
        ("processor", f"{system.cores} cores" + (f", governor {facts.power.governor}" if facts.power.governor else "")),
        ("memory", f"{_gib(system.memory_free_bytes)} free of {_gib(system.memory_bytes)}"),
    ]
    rows += [
        ("disk", f"{amount(d.free_bytes, 'B')} free of {amount(d.total_bytes, 'B')} in {d.folder}") for d in facts.disks
    ]
    rows += [("Python", _python(facts)), ("JetPack", _jetpack(facts))]
    rows += [("GPU", _joined(gpu.name, _sm(gpu), _gib(gpu.memory_bytes))) for gpu in driver.gpus]
    rows += [] if driver.gpus else [("GPU", "none")]
    runs = f"CUDA up to {driver.cuda}" if driver.cuda else ""
    rows += [
        ("driver", _joined(driver.version or "none", runs, driver.problem)),
        ("CUDA", f"toolkit {driver.toolkit}" if driver.toolkit else "no toolkit (nvcc)"),
        ("CUDA Python", ", ".join(f"{name} {version}" for name, version in facts.cuda_python.items()) or "none"),
    ]
    rows += [(flavor.title, _tensorrt(flavor)) for flavor in facts.tensorrt]
    rows += [
        ("ONNX Runtime", _library(facts.onnxruntime)),
        ("OpenCV", _library(facts.opencv)),
        ("PyAV", _library(facts.pyav)),
    ]
    return rows + _power(facts)


def _python(facts: Facts) -> str:
    shown = ("trt-blendmask", "numpy", "onnx")
    versions = [f"{name} {facts.python.packages[name]}" for name in shown if name in facts.python.packages]
    venv = "in a virtual environment" if facts.python.venv else ""
    return _joined(facts.python.version, venv, *versions, facts.python.problem)


def _jetpack(facts: Facts) -> str:
    jetson = facts.jetson
    if jetson is None:
        return "none: not a Jetson"
    return _joined(jetson.jetpack or "unknown", f"Jetson Linux {jetson.l4t}" if jetson.l4t else "", jetson.model)


def _tensorrt(flavor: TensorRt) -> str:
    if not flavor.installed:
        return "not installed"
    plugin = _PLUGIN.get(flavor.plugin, "")
    if flavor.flavor == "rtx" and flavor.plugin == "missing":
        plugin = ""
    elif flavor.flavor == "rtx" and plugin:
        plugin += " (but its engines have no plugin layers)"
    return _joined(flavor.version, "cannot be used" if flavor.problem else plugin)


def _library(library: Library) -> str:
    if library.problem:
        return library.problem.removeprefix("is ")
    words = []
    for name, value in library.features.items():
        if isinstance(value, bool):
            words.append(f"{name} {'yes' if value else 'no'}")
        elif isinstance(value, list):
            words.append(", ".join(map(str, value)))
        elif value:
            words.append(f"{name} {value}" if name != "place" else f"in {value}")
    return _joined(library.version, *words)


def _power(facts: Facts) -> list[tuple[str, str]]:
    power = facts.power
    rows = []
    if power.mode or power.problem or power.limit_w:
        rows.append(("power", power.mode or power.problem or f"limit {power.limit_w:.0f} W"))
    if clocks := [clock for clock in power.clocks if clock.highest_mhz]:
        rows.append(("clocks", ", ".join(map(_clock, clocks))))
    return rows


def _clock(clock: Clock) -> str:
    if not clock.lowest_mhz:
        return f"{clock.unit} {clock.now_mhz:.0f} of {clock.highest_mhz:.0f} MHz"
    how = "locked" if clock.locked else f"between {clock.lowest_mhz:.0f} and {clock.highest_mhz:.0f}"
    return f"{clock.unit} {clock.now_mhz:.0f} MHz ({how})"


def _sm(gpu: Gpu) -> str:
    number = gpu.compute_capability.replace(".", "")
    return f"SM {number}" if number.isdecimal() else ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))
