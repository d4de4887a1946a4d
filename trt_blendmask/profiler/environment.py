"""The machine, for the report: without it no figure means anything."""

from __future__ import annotations

import re

from trt_blendmask.doctor.facts import Facts
from trt_blendmask.doctor.look import look
from trt_blendmask.doctor.machine import Machine
from trt_blendmask.profiler.readings import Watcher
from trt_blendmask.profiler.report import Environment, Readings


def look_round(machine: Machine) -> Environment:
    """The machine as it is now; what `look` cannot find out is left empty."""
    facts = look(machine)
    gpus = facts.driver.gpus if not facts.driver.problem else ()
    usable = [one for one in facts.tensorrt if one.usable]
    return Environment(
        machine=_machine(machine, facts),
        cpu=_cpu(machine),
        cores=facts.system.cores,
        memory_bytes=facts.system.memory_bytes,
        os=facts.system.name,
        kernel=facts.system.kernel,
        architecture=facts.system.architecture,
        python=facts.python.version,
        onnxruntime=facts.onnxruntime.version,
        tensorrt=", ".join(f"{one.title} {one.version}" for one in usable),
        packages=facts.python.packages,
        gpu=", ".join(gpu.name for gpu in gpus),
        driver=facts.driver.version,
        cuda=facts.driver.cuda,
        clocks=tuple(
            f"{clock.unit} {clock.now_mhz:.0f} MHz ({clock.lowest_mhz:.0f} to {clock.highest_mhz:.0f})"
            for clock in facts.power.clocks
        ),
        power_mode=facts.power.mode or (f"{facts.power.limit_w:.0f} W" if facts.power.limit_w else ""),
        governor=facts.power.governor,
        load=_load(machine),
    )


def missing(environment: Environment, readings: Readings, watcher: Watcher) -> tuple[str, ...]:
    """What is not available here, and why."""
    words = []
    if not environment.gpu:
        words.append("GPU: none that runs engines; type trt-blendmask doctor for the reason")
    elif watcher.nvml.problem:
        words.append(f"GPU clock, temperature and power: {watcher.nvml.problem}")
    if "CPU MHz" not in readings.series:
        words.append("CPU clock: the kernel does not tell (usual in a virtual machine)")
    if not environment.governor:
        words.append("CPU governor: the kernel does not tell")
    if not any(name.endswith(" C") for name in readings.series):
        words.append("temperature: no sensor")
    if not readings.power:
        rails = [name for name in readings.series if name.endswith(" W")]
        told = f" for the whole board, only {', '.join(rails)}" if rails else ""
        words.append(f"watts and energy per frame: no sensor{told}")
    if not environment.power_mode:
        words.append("power mode: only a Jetson and NVIDIA's desktop GPUs have one")
    if watcher.others_cores is None:
        words.append("load of other processes: the system does not tell")
    return tuple(words)


def _machine(machine: Machine, facts: Facts) -> str:
    if facts.jetson:
        jetpack = f", JetPack {facts.jetson.jetpack}" if facts.jetson.jetpack else ""
        return f"{facts.jetson.model}, Jetson Linux {facts.jetson.l4t}{jetpack}"
    board = " ".join(machine.read(f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")).strip()
    inside = " (in a container)" if facts.system.container else ""
    return f"{board or machine.read('/proc/device-tree/model') or 'unknown'}{inside}"


def _cpu(machine: Machine) -> str:
    text = machine.read("/proc/cpuinfo")
    named = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.M)
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)", text, re.M)))
    return named[1].strip() if named else f"ARM, part {', '.join(parts)}" if parts else ""


def _load(machine: Machine) -> str:
    """Of the last minute, before this run."""
    average = machine.read("/proc/loadavg").split()[:1]
    pressure = re.search(r"^some .*?avg60=([\d.]+)", machine.read("/proc/pressure/cpu"), re.M)
    words = [f"{average[0]} processes that want to run, mean of the last minute"] if average else []
    if pressure:
        words.append(f"{pressure[1]} % of that minute some of them waited for a core")
    return "; ".join(words)
