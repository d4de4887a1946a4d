"""The double itself passes the suite that the real back ends must pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.cuda.fake_cuda import GARBAGE, FakeDevice
from tests.cuda.suite import DeviceSuite
from trt_blendmask.cuda import choose
from trt_blendmask.errors import SourceUnavailableError, UsageError


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    device = FakeDevice()
    yield device
    assert not device.live, "something was not freed"


class TestDouble(DeviceSuite):
    """All of the suite."""


def test_double_judges(device: FakeDevice) -> None:
    """What a test over it relies on: it catches what a GPU would."""
    with device.current():
        stream, host, memory = device.stream(), device.pinned(64), device.memory(64)
        host.array[:] = 1
        stream.upload(memory.pointer, host.array)
        assert memory.array[0] == GARBAGE, "nothing is done before somebody waits"
        with pytest.raises(SourceUnavailableError, match="pending"), device.current():
            memory.free()
        stream.synchronize()
        for wrong in (
            lambda: stream.upload(memory.pointer + 1, host.array),
            lambda: stream.upload(memory.pointer, np.zeros(8, np.uint8)),
            lambda: stream.download(np.zeros(8, np.uint8), memory.pointer),
            lambda: device.capture(stream, lambda: device.memory(1).free()),
        ):
            with pytest.raises(SourceUnavailableError), device.current():
                wrong()
        memory.free()
        with pytest.raises(SourceUnavailableError), device.current():
            stream.upload(memory.pointer, host.array)
        host.free()
        stream.free()
    with pytest.raises(Exception, match="invalid device context"):
        device.memory(1)


def test_choose() -> None:
    with pytest.raises(UsageError, match=r"core or pycuda, got 'cupy'"):
        choose("cupy")


@pytest.mark.parametrize("library", ["core", "pycuda"])
def test_choose_without_a_gpu(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setattr("trt_blendmask.cuda.find_device", lambda: None)
    with pytest.raises(SourceUnavailableError, match=r"doctor") as caught:
        choose(library)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize(("library", "extra"), [("core", "cuda"), ("pycuda", "pycuda")])
def test_choose_without_the_library(monkeypatch: pytest.MonkeyPatch, library: str, extra: str) -> None:
    monkeypatch.setattr("trt_blendmask.cuda.find_device", lambda: object())
    for name in ("cuda.core", "pycuda.driver", "pycuda"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    for name in ("cuda_core", "pycuda"):
        monkeypatch.delitem(__import__("sys").modules, f"trt_blendmask.cuda.{name}", raising=False)
    with pytest.raises(SourceUnavailableError, match=rf"pip install 'trt-blendmask\[{extra}\]'"):
        choose(library)
