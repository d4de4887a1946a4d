"""What NVIDIA's management library tells of the GPU in use: clock, temperature, watts, and what slows it down."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from trt_blendmask.engines.device import find_device

_SLOWED = {  # clocksEventReasons of nvml.h
    0x04: "its power limit",
    0x08: "the hardware, for heat or power",
    0x20: "heat",
    0x40: "the hardware, for heat",
    0x80: "the hardware, for its power supply",
}


class Nvml:
    """Nothing where there is no such library (`pip install nvidia-ml-py`) or GPU; `problem` then says why."""

    def __init__(self) -> None:
        self.problem = ""
        self._asked: dict[str, Callable[[], float]] = {}
        self._reasons: Callable[[], float] = lambda: 0
        try:
            nvml: Any = import_module("pynvml")
            nvml.nvmlInit()
            gpu = _gpu_of_cuda(nvml)
        except ImportError:
            self.problem = "nvidia-ml-py is not installed: pip install 'trt-blendmask[profile]'"
            return
        except Exception as error:  # the library's own exceptions share no public base class
            self.problem = f"NVML says: {error}"
            return
        if gpu is None:
            self.problem = "CUDA does not tell which of NVML's GPUs it shows"
            return
        self._asked = {
            "GPU MHz": lambda: float(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_GRAPHICS)),
            "GPU C": lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "GPU W": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
        }
        self._reasons = lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)

    def read(self) -> dict[str, float]:
        """What it tells now, by the names of `Readings.series`."""
        values = {name: _answer(ask) for name, ask in self._asked.items()}
        return {name: value for name, value in values.items() if value is not None}

    def slowed_by(self) -> set[str]:
        """What slows the GPU down now, in words."""
        reasons = int(_answer(self._reasons) or 0)
        return {words for bit, words in _SLOWED.items() if reasons & bit}


def _gpu_of_cuda(nvml: Any) -> Any:
    """The handle of CUDA's first GPU, None where that cannot be told; NVML has an order of its own and hides none."""
    if nvml.nvmlDeviceGetCount() == 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return nvml.nvmlDeviceGetHandleByIndex(0)  # a Jetson's has no place on a PCI bus
    device = find_device()
    return nvml.nvmlDeviceGetHandleByPciBusId(device.pci_bus_id) if device and device.pci_bus_id else None


def _answer(ask: Callable[[], float]) -> float | None:
    try:
        return ask()
    except Exception:  # this GPU does not tell; likewise
        return None
