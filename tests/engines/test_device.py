"""The GPU, told by a double of the driver: it fills in what its caller points to, as libcuda.so.1 does."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest

from trt_blendmask.engines import device
from trt_blendmask.engines.device import find_device


class Driver:
    """Of one GPU; `bus_error` is what asking for its PCI bus id returns."""

    bus_error = 0

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, number: Any, index: int) -> int:  # noqa: N802
        number._obj.value = 7 + index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, _number: Any) -> int:  # noqa: N802
        assert size == len(name)
        name.value = b"A GPU"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13000
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, _number: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 9}[which]
        return 0

    def cuDeviceGetPCIBusId(self, bus_id: Any, size: int, number: Any) -> int:  # noqa: N802
        assert (number.value, size) == (7, len(bus_id))
        bus_id.value = b"0000:65:00.0"
        return self.bus_error


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    fake = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: fake)
    monkeypatch.setattr(device, "_driver", lambda: "580.65.06")
    find_device.cache_clear()
    yield fake
    find_device.cache_clear()


@pytest.mark.usefixtures("driver")
def test_a_gpu_has_a_place_on_the_bus() -> None:
    assert find_device() == device.Device("A GPU", "8.9", "580.65.06", "13.0", "0000:65:00.0")


def test_a_driver_that_does_not_tell_the_place(driver: Driver) -> None:
    driver.bus_error = 1
    found = find_device()
    assert found is not None
    assert (found.name, found.pci_bus_id) == ("A GPU", "")
