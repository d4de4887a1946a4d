"""From the machine's files and answers to facts."""

from __future__ import annotations

import re
from typing import Any

from trt_blendmask.doctor.facts import (
    Clock,
    Disk,
    Driver,
    Facts,
    Gpu,
    Jetson,
    Library,
    Power,
    Python,
    System,
    TensorRt,
)
from trt_blendmask.doctor.machine import Answers, Machine
from trt_blendmask.engines.flavor import MODULES

# Jetson Linux -> JetPack, the first that fits: of NVIDIA's release notes.
_JETPACKS = (
    ("39.2", "7.2"),
    ("39.", "7"),
    ("38.4", "7.1"),
    ("38.2", "7.0"),
    ("38.", "7"),
    ("36.4.4", "6.2.1"),
    ("36.4.3", "6.2"),
    ("36.4.0", "6.1"),
    ("36.3", "6.0"),
    ("36.2", "6.0"),
    ("36.", "6"),
    ("35.", "5"),
    ("32.", "4"),
)
_PACKAGES = re.compile(
    r"(trt-blendmask|numpy|onnx|onnx-graphsurgeon|onnxruntime.*|av|opencv-.*|tensorrt.*|cuda-.*|pycuda|rich|pyyaml)",
    re.I,
)
GPU_CLOCKS = "/sys/class/devfreq/*"
GPU_UNIT = re.compile(r"(\.gpu|\.ga10b|gpu-gpc.*|\.gv11b|gpu)$")


def look(machine: Machine) -> Facts:
    """Ask everything; takes as long as the slowest answer may."""
    answers = machine.ask_all()
    libraries = answers.libraries
    cuda = {name: str(version) for name, version in libraries["cuda_python"].items() if name != "problem"}
    disks = tuple(
        Disk(folder, usage["free_bytes"], usage["total_bytes"])
        for folder, usage in libraries["disk"].items()
        if isinstance(usage, dict)
    )
    opencv, pyav = libraries["opencv"], libraries["pyav"]
    return Facts(
        _system(machine, answers),
        disks,
        _python(libraries["python"]),
        _jetson(machine, answers),
        _driver(machine, answers),
        tuple(_tensorrt(name, libraries[probe]) for name, probe in zip(MODULES, ("tensorrt", "rtx"), strict=True)),
        cuda,
        _library(libraries["onnxruntime"], "providers"),
        Library(
            str(opencv.get("version", "")),
            {**opencv.get("features", {}), "place": opencv.get("place", "")},
            opencv["problem"],
        ),
        _library(pyav, "libavcodec", "h264"),
        _power(machine, answers),
    )


def _system(machine: Machine, answers: Answers) -> System:
    named = re.search(r'^PRETTY_NAME="?(.*?)"?$', machine.read("/etc/os-release"), re.M)
    kernel, _, architecture = answers.out("uname").rpartition(" ")
    sizes = {
        key: 1024 * int(kib) for key, kib in re.findall(r"^(\w+):\s+(\d+) kB", machine.read("/proc/meminfo"), re.M)
    }
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", sizes.get("MemFree", 0))
    limit, used = (_number(machine.read(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
    if 0 < limit < total:
        total, free = int(limit), min(free, int(limit - used))
    return System(
        named[1] if named else "",
        kernel,
        architecture,
        _in_container(machine),
        _cores(machine),
        total,
        free,
        sizes.get("SwapTotal", 0),
    )


def _cores(machine: Machine) -> int:
    """Those that the container or taskset leaves to this process."""
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", machine.read("/proc/self/status"), re.M)
    ranges = [part.split("-") for part in allowed[1].split(",")] if allowed else []
    cores = sum(int(_number(ends[-1]) - _number(ends[0])) + 1 for ends in ranges)
    quota, _, period = machine.read("/sys/fs/cgroup/cpu.max").partition(" ")
    if _number(quota) > 0 and _number(period) > 0:
        cores = min(cores, max(1, int(_number(quota) / _number(period))))
    return cores


def _in_container(machine: Machine) -> bool:
    marks = ("/.dockerenv", "/run/.containerenv")
    return any(machine.find(mark) for mark in marks) or "container=" in machine.read("/proc/1/environ")


def _python(answer: dict[str, Any]) -> Python:
    packages = {name: version for name, version in answer.get("packages", {}).items() if _PACKAGES.fullmatch(name)}
    ordered = dict(sorted(packages.items(), key=lambda item: item[0].lower()))
    return Python(str(answer.get("version", "")), bool(answer.get("venv")), ordered, answer["problem"])


def _jetson(machine: Machine, answers: Answers) -> Jetson | None:
    model = machine.read("/proc/device-tree/model") or machine.read("/sys/firmware/devicetree/base/model")
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", machine.read("/etc/nv_tegra_release"))
    rows = (line.split("\t") for line in answers.programs["dpkg-query"].out.splitlines())
    packages = {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}
    l4t = f"{release[1]}.{release[2]}" if release else packages.get("nvidia-l4t-core", "").partition("-")[0]
    if not l4t and "nvidia jetson" not in model.lower():
        return None
    jetpack = re.match(r"\d+(\.\d+)*", packages.get("nvidia-jetpack", ""))
    known = next((jetpack for start, jetpack in _JETPACKS if l4t.startswith(start)), "")
    return Jetson(model, l4t, jetpack[0] if jetpack else known, packages)


def _driver(machine: Machine, answers: Answers) -> Driver:
    answer, rows = answers.libraries["driver"], _nvidia_smi(answers)
    gpus = tuple(Gpu(**gpu) for gpu in answer.get("gpus", ()))
    if not gpus:  # what the management library sees, even if CUDA cannot use it
        gpus = tuple(Gpu(row[0], row[1], int(_number(row[3]) * 2**20)) for row in rows)
    kernel = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", machine.read("/proc/driver/nvidia/version"))
    toolkit = re.search(r"release ([\d.]+)", answers.out("nvcc"))
    problem = answer["problem"] or ("" if answer.get("gpus") else "the driver shows no GPU")
    version = rows[0][2] if rows else kernel[1] if kernel else ""
    smi = answers.problem("nvidia-smi")
    return Driver(version, str(answer.get("cuda", "")), toolkit[1] if toolkit else "", gpus, problem, smi)


def _nvidia_smi(answers: Answers) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split(",")] for line in answers.out("nvidia-smi").splitlines()]
    return [row for row in rows if len(row) == 7]


def _tensorrt(name: str, answer: dict[str, Any]) -> TensorRt:
    plugin = str(answer.get("plugin", ""))
    problem = answer["problem"] if plugin != "crashes" else ""
    told = str(answer.get("plugin_problem", "")) or (answer["problem"] if plugin == "crashes" else "")
    installed = bool(answer.get("installed", bool(problem)))
    version, library = (str(answer.get(key, "")) for key in ("version", "library"))
    return TensorRt(name, installed, version, plugin, library, problem, told)


def _library(answer: dict[str, Any], *features: str) -> Library:
    known = {name: answer[name] for name in features if name in answer}
    return Library(str(answer.get("version", "")), known, answer["problem"])


def _power(machine: Machine, answers: Answers) -> Power:
    mode = re.search(r"NV Power Mode\s*:\s*(\S+)", answers.programs["nvpmodel"].out)
    rows = _nvidia_smi(answers)
    clocks = _sysfs_clocks(machine) or _shown_clocks(answers)
    if not clocks and rows and _number(rows[0][6]):
        clocks = (Clock("GPU", _number(rows[0][5]), 0.0, _number(rows[0][6])),)
    governor = machine.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    limit = _number(rows[0][4]) if rows else 0.0
    problem = "" if mode else answers.problem("nvpmodel")
    return Power(mode[1] if mode else "", limit, governor, clocks, problem)


def _sysfs_clocks(machine: Machine) -> tuple[Clock, ...]:
    """Of the CPU and, on a Jetson, of the GPU: what jetson_clocks locks, readable without being root."""
    places = [("GPU", place, "{}_freq", 1e6) for place in machine.find(GPU_CLOCKS) if GPU_UNIT.search(place)]
    if not places:
        return ()
    places.append(("CPU", "/sys/devices/system/cpu/cpu0/cpufreq", "scaling_{}_freq", 1e3))
    return tuple(
        Clock(unit, *(_number(machine.read(f"{place}/{form.format(which)}")) / per for which in ("cur", "min", "max")))
        for unit, place, form, per in places
    )


def _shown_clocks(answers: Answers) -> tuple[Clock, ...]:
    """The same from jetson_clocks, which wants to be root."""
    form = r"^\s*(GPU|EMC)\s.*?MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)"
    found = re.findall(form, answers.programs["jetson_clocks"].out, re.M)
    return tuple(Clock(unit, float(now) / 1e6, float(low) / 1e6, float(high) / 1e6) for unit, low, high, now in found)


def _number(text: str) -> float:
    """0 for what is none: "[N/A]", "max"."""
    try:
        return float(text)
    except ValueError:
        return 0.0
