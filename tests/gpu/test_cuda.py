"""Both libraries by which we reach a GPU pass the suite of the protocol, and leave the caller's contexts alone.

tests/cuda/test_real_libraries.py runs this file over a double of the driver, too.
"""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cuda.suite import DeviceSuite
from trt_blendmask.cuda import Device, choose


def library(name: str, *needs: str) -> Any:
    return pytest.param(name, marks=pytest.mark.needs("gpu", *needs), id=name)


LIBRARIES = [library("core", "cuda-core"), library("pycuda", "pycuda")]


@pytest.fixture(params=LIBRARIES)
def device(request: pytest.FixtureRequest) -> Device:
    return choose(request.param)


class TestDevice(DeviceSuite):
    """All of the suite."""


def test_streams_do_not_wait_for_the_default_one(device: Device) -> None:
    flags = ctypes.c_uint()
    with device.current():
        stream = device.stream()
        handle = ctypes.c_void_p(stream.handle)
        assert ctypes.CDLL("libcuda.so.1").cuStreamGetFlags(handle, ctypes.byref(flags)) == 0
        stream.free()
    assert flags.value == 1


@pytest.mark.needs("gpu", "cuda-core")
def test_core_puts_the_callers_context_back() -> None:
    """None, in a new thread, and then the primary one, which is shared and not made again."""
    from cuda.bindings import driver

    def current() -> int:
        error, context = driver.cuCtxGetCurrent()
        assert error == driver.CUresult.CUDA_SUCCESS
        return int(context)

    def work() -> None:
        device = choose("core")
        assert current() == 0
        with device.current():
            inside = current()
            assert inside == primary()
        assert current() == 0
        (error,) = driver.cuCtxPushCurrent(driver.CUcontext(inside))
        assert error == driver.CUresult.CUDA_SUCCESS
        with device.current():
            assert current() == inside
        assert current() == inside
        driver.cuCtxPopCurrent()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@pytest.mark.needs("gpu", "pycuda")
def test_pycuda_shares_the_callers_context() -> None:
    import pycuda.driver as cuda

    cuda.init()
    callers = cuda.Device(0).make_context()
    try:
        device = choose("pycuda")
        with device.current():
            assert cuda.Context.get_current() == callers
            memory, stream, host = device.memory(64), device.stream(), device.pinned(64)
            theirs = cuda.mem_alloc(64)
            host.array[:] = range(64)
            stream.upload(memory.pointer, host.array)
            stream.copy(int(theirs), memory.pointer, 64)
            stream.synchronize()
            host.array[:] = 0
            stream.download(host.array, int(theirs))
            stream.synchronize()
            assert host.array.tolist() == list(range(64))
            theirs.free()
            for thing in (memory, stream, host):
                thing.free()
        assert cuda.Context.get_current() == callers
        cuda.mem_alloc(64).free()
    finally:
        callers.pop()
        callers.detach()


def primary() -> int:
    """Address of the primary context, asked of the driver."""
    driver, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuDevicePrimaryCtxRelease_v2(0) == 0
    return context.value or 0


@pytest.mark.needs("gpu", "pycuda")
def test_pycuda_retains_the_primary_context() -> None:
    """Where the caller has none; and no thread is left with it, in which PyCUDA would end the process."""
    import pycuda.driver as cuda

    cuda.init()
    assert cuda.Context.get_current() is None
    device = choose("pycuda")
    assert cuda.Context.get_current() is None
    seen: list[bool] = []

    def work() -> None:
        with device.current():
            seen.append(cuda.Context.get_current().handle == primary())
            device.memory(64).free()
        seen.append(cuda.Context.get_current() is None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    assert seen == [True] * 4
