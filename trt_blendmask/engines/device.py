"""The GPU of this machine, asked of the driver itself: without one, TensorRT's runtime ends the process."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, cuda.h
_VERSION_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))


@dataclass(frozen=True)
class Device:
    """The first GPU that the driver shows (CUDA_VISIBLE_DEVICES chooses).

    Attributes:
        name: "Orin". compute_capability: "8.7".
        driver: "580.65.06", on a Jetson its L4T release "R36.4.3"; "" unknown. cuda_version: the driver's, "13.0".
        pci_bus_id: "0000:65:00.0", by which other libraries know it; "" where the driver does not tell.
    """

    name: str
    compute_capability: str
    driver: str
    cuda_version: str
    pci_bus_id: str = ""


@cache
def find_device() -> Device | None:
    """The GPU; None without a driver or a GPU. No CUDA context is made."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number, version = ctypes.c_int(), ctypes.c_int()
    name, bus = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    found = cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(number), 0) == 0
    if not found or cuda.cuDeviceGetName(name, len(name), number) or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    capability = f"{_attribute(cuda, _MAJOR, number)}.{_attribute(cuda, _MINOR, number)}"
    text = name.value.decode(errors="replace")
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    bus_id = "" if cuda.cuDeviceGetPCIBusId(bus, len(bus), number) else bus.value.decode(errors="replace")
    return Device(text, capability, _driver(), cuda_version, bus_id)


def _attribute(cuda: Any, which: int, number: ctypes.c_int) -> int:
    value = ctypes.c_int()
    cuda.cuDeviceGetAttribute(ctypes.byref(value), which, number)
    return value.value


def _driver() -> str:
    for file in _VERSION_FILES:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text):
            return match[1]
        if match := re.search(r"(R\d+) \(release\), REVISION: ([\d.]+)", text):
            return f"{match[1]}.{match[2]}"
    return ""
