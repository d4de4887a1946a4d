"""The machine, and its sensors while models are timed, below a folder that stands for another machine's /."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from trt_blendmask.doctor.machine import Machine
from trt_blendmask.engines.device import Device
from trt_blendmask.profiler import nvml, verdicts
from trt_blendmask.profiler.environment import look_round, missing
from trt_blendmask.profiler.nvml import Nvml
from trt_blendmask.profiler.readings import Watcher, read_load
from trt_blendmask.profiler.report import Environment, LayerProfile, ModelProfile, Readings, Span

ZONES = "sys/class/thermal/thermal_zone0"
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"
INA = "sys/class/hwmon/hwmon3"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
    return root


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    return put(
        tmp_path,
        {
            f"{ZONES}/type": "cpu-thermal",
            f"{ZONES}/temp": "45500",
            f"{CPUFREQ}/scaling_cur_freq": "1510400",
            f"{CPUFREQ}/scaling_governor": "schedutil",
            "sys/class/devfreq/17000000.gpu/cur_freq": "918000000",
            "sys/class/devfreq/17000000.gpu/min_freq": "306000000",
            "sys/class/devfreq/17000000.gpu/max_freq": "918000000",
            f"{INA}/in1_label": "VDD_IN",
            f"{INA}/in1_input": "5000",
            f"{INA}/curr1_input": "1600",
            "sys/class/hwmon/hwmon1/oc1_event_cnt": "3",
            "sys/class/thermal/cooling_device0/type": "pwm-fan",
            "sys/class/thermal/cooling_device0/cur_state": "2",
            "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert",
            "sys/class/thermal/cooling_device1/cur_state": "0",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1",
            "proc/cpuinfo": "processor : 0\nCPU part : 0xd42",
            "proc/loadavg": "1.50 0.9 0.7 1/200 4242",
        },
    )


def watch(root: Path, seconds: float = 0.35) -> Watcher:
    with Watcher(Machine(root)) as watcher:
        time.sleep(seconds)
    return watcher


def test_sensors_of_a_jetson(jetson: Path) -> None:
    began = time.perf_counter()
    watcher = watch(jetson)
    readings = watcher.readings()
    assert {name: set(values) for name, values in readings.series.items()} == {
        "CPU MHz": {1510.4},
        "GPU MHz": {918.0},
        "cpu C": {45.5},
        "VDD_IN W": {8.0},
    }
    assert readings.power == "VDD_IN W"
    assert len(readings.at_s) >= 3
    assert all(later - before < 0.2 for before, later in zip(readings.at_s, readings.at_s[1:], strict=False))
    assert watcher.slowed_by == set()
    assert watcher.spans([(began, time.perf_counter())])["VDD_IN W"] == Span(8.0, 8.0, 8.0)
    assert watcher.spans([(began - 2, began - 1)]) == {}


def test_readings_change(jetson: Path) -> None:
    with Watcher(Machine(jetson)) as watcher:
        time.sleep(0.25)
        put(jetson, {f"{INA}/curr1_input": "3200", "sys/class/devfreq/17000000.gpu/cur_freq": "306000000"})
        (jetson / ZONES / "temp").unlink()
        time.sleep(0.35)
    series = watcher.readings().series
    assert set(series["VDD_IN W"]) == {8.0, 16.0}
    assert series["GPU MHz"][0] == 918.0
    assert series["GPU MHz"][-1] == 306.0
    assert next(values for name, values in series.items() if name.startswith("cpu"))[-1] is None


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("sys/class/hwmon/hwmon1/oc1_event_cnt", "4", "over-current"),
        ("sys/class/thermal/cooling_device1/cur_state", "1", "heat (gpu-throttle-alert)"),
    ],
)
def test_slowed_down(jetson: Path, place: str, value: str, words: str) -> None:
    with Watcher(Machine(jetson)) as watcher:
        time.sleep(0.12)
        put(jetson, {place: value})
        time.sleep(0.25)
    assert watcher.slowed_by == {words}
    assert any(words in warning for warning in verdicts.of_machine(environment(), watcher, ()))


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    watcher = watch(tmp_path, 0.15)
    readings = watcher.readings()
    assert readings.series == {}
    assert watcher.others_cores is None
    words = missing(environment(), readings, watcher)
    for what in ("GPU", "CPU clock", "temperature", "watts", "power mode", "load of other processes"):
        assert any(what in one for one in words), what


def test_load_of_others(tmp_path: Path) -> None:
    """Ticks are hundredths of a second, of the cores that this process may use only."""
    import os

    cores = sorted(os.sched_getaffinity(0))
    stat = f"cpu  9 9 9 9 9 9 9 9 0 0\ncpu{cores[0]} 100 20 30 5 6 40 50 70 1000 0\ncpu9999 7 7 7 7 7 7 7 7 0 0"
    load = read_load(Machine(put(tmp_path, {"proc/stat": stat})))
    assert load is not None
    per_s = os.sysconf("SC_CLK_TCK")
    assert (load.busy_s, load.stolen_s) == (240 / per_s, 70 / per_s)


def test_load_of_this_machine() -> None:
    with Watcher() as watcher:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    assert watcher.others_cores is not None
    assert watcher.others_cores >= 0


def test_environment_of_a_jetson(jetson: Path) -> None:
    seen = look_round(Machine(jetson, path="", library_s=20))
    assert "Orin Nano" in seen.machine
    assert "JetPack 6.2" in seen.machine
    assert seen.cpu == "ARM, part 0xd42"
    assert seen.governor == "schedutil"
    assert seen.clocks == ("GPU 918 MHz (306 to 918)", "CPU 1510 MHz (0 to 0)")
    assert "1.50" in seen.load
    assert seen.python == sys.version.split()[0]
    assert seen.onnxruntime


def environment(**changes: str) -> Environment:
    return replace(Environment(cores=2), **changes)  # type: ignore[arg-type]


class FakeNvml(ModuleType):
    """NVML of a GPU that its power limit holds back; the temperature cannot be asked."""

    NVML_CLOCK_GRAPHICS, NVML_TEMPERATURE_GPU = 0, 0
    watts = (123.456,)  # of each GPU

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.watts)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        return SimpleNamespace(index=index)

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> object:  # noqa: N802
        return SimpleNamespace(index=("0000:01:00.0", "0000:65:00.0").index(bus_id))

    def nvmlDeviceGetClockInfo(self, _gpu: object, _kind: int) -> int:  # noqa: N802
        return 1410

    def nvmlDeviceGetTemperature(self, _gpu: object, _kind: int) -> int:  # noqa: N802
        raise RuntimeError("Not Supported")

    def nvmlDeviceGetPowerUsage(self, gpu: Any) -> int:  # noqa: N802
        return round(1e3 * self.watts[gpu.index])

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _gpu: object) -> int:  # noqa: N802
        return 0x04 | 0x01


def test_nvml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("pynvml"))
    with Watcher(Machine(tmp_path), Nvml()) as watcher:
        time.sleep(0.12)
    readings = watcher.readings()
    assert {name: values[0] for name, values in readings.series.items()} == {"GPU MHz": 1410.0, "GPU W": 123.456}
    assert readings.power == "GPU W"
    assert watcher.slowed_by == {"its power limit"}


@pytest.mark.parametrize(
    ("bus_id", "watts", "told"),
    [("0000:65:00.0", (15.0, 300.0), 300.0), ("0000:01:00.0", (15.0, 300.0), 15.0), ("0000:01:00.0", (15.0,), 15.0)],
)
def test_nvml_of_the_gpu_that_cuda_uses(
    monkeypatch: pytest.MonkeyPatch, bus_id: str, watts: tuple[float, ...], told: float
) -> None:
    """Several GPUs, or one that may be hidden: NVML shows all, in an order of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    fake = FakeNvml("pynvml")
    monkeypatch.setattr(fake, "watts", watts, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(nvml, "find_device", lambda: Device("A GPU", "8.9", "", "13.0", bus_id))
    assert Nvml().read()["GPU W"] == told
    for unknown in (None, Device("A GPU", "8.9", "", "13.0")):
        monkeypatch.setattr(nvml, "find_device", lambda found=unknown: found)
        assert "which of NVML's GPUs" in Nvml().problem
        assert Nvml().read() == {}


def test_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "trt-blendmask[profile]" in Nvml().problem
    broken = FakeNvml("pynvml")
    monkeypatch.setattr(broken, "nvmlInit", lambda: 1 / 0, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    silent = Nvml()
    assert "division" in silent.problem
    assert (silent.read(), silent.slowed_by()) == ({}, set())
    words = missing(environment(gpu="A GPU"), Readings(), Watcher(nvml=silent))
    assert any("division" in one for one in words)


def model(times: dict[str, list[float]], **conditions: Span) -> ModelProfile:
    return ModelProfile("m", "m", "", "", "", (1, 1), None, 0, times, conditions=conditions)


def parts(
    h2d: float = 0.1, compute: float = 4.0, d2h: float = 0.1, enqueue: float = 0.1, gpu: float = 4.2
) -> ModelProfile:
    values = {"h2d": h2d, "compute": compute, "d2h": d2h, "enqueue": enqueue, "gpu": gpu}
    return model({key: [ms] * 20 for key, ms in values.items()})


def test_warnings_of_a_model() -> None:
    assert verdicts.of_model(parts()) == ()
    assert "Waits for the CPU" in verdicts.of_model(parts(enqueue=3.5))[0]
    assert verdicts.of_model(parts(enqueue=3.3)) == ()
    assert "Waits for transfers" in verdicts.of_model(parts(h2d=2.0, d2h=2.0))[0]
    assert verdicts.of_model(parts(h2d=2.0, d2h=1.9)) == ()
    assert "Unstable" in verdicts.of_model(model({"network": [10.0, 13.0] * 20}))[0]
    assert verdicts.of_model(model({"network": [10.0, 10.5] * 20})) == ()
    assert "Unstable" in verdicts.of_model(model({"network": [10.0] * 9, "gpu": [10.0, 10.6] * 20}))[0]
    idle = model({"network": [10.0] * 9}, **{"GPU MHz": Span(306, 700, 918)})
    assert verdicts.of_model(idle) == ()  # it does not run there
    for gap, warned in ((0.04, False), (-0.07, True)):
        layers = LayerProfile("ONNX Runtime", 9, 10.0, 10.0 * (1 - gap), gap, ())
        assert any("above the whole" in one for one in verdicts.of_model(replace(parts(), layers=layers))) is warned
    moved = verdicts.of_model(replace(idle, times={"gpu": [10.0] * 9}))
    assert "306 to 918 MHz" in moved[0]
    assert "jetson_clocks" in moved[0]
    assert verdicts.of_model(model({})) == ()


def test_warnings_of_the_machine() -> None:
    watcher = Watcher(others_cores=0.5, stolen_cores=0.2)
    words = verdicts.of_machine(environment(governor="powersave"), watcher, ())
    assert [any(part in one for one in words) for part in ("0.50 of 2 cores", "0.20 of 2 cores", "powersave")] == [
        True
    ] * 3
    calm = Watcher(others_cores=0.01, stolen_cores=0.0)
    assert verdicts.of_machine(environment(governor="performance"), calm, ()) == ()


@pytest.mark.parametrize("kind", ["TCC Offset", "iwlwifi_1", "pwm-fan", "bq25890-charger"])
def test_what_is_no_throttling(jetson: Path, kind: str) -> None:
    """Cooling devices that are on while nothing is slowed down."""
    put(
        jetson,
        {f"sys/class/thermal/cooling_device1/{name}": text for name, text in (("type", kind), ("cur_state", "3"))},
    )
    assert watch(jetson, 0.15).slowed_by == set()
