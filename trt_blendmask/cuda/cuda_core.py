"""CUDA through NVIDIA's cuda.core (and cuda.bindings, for what it lacks), in the device's primary context: the one that
PyTorch, CuPy and the CUDA runtime use as well.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import cuda.core
import numpy as np
from cuda.bindings import driver

from trt_blendmask.cuda import Event, MemoryInfo, Stream, failures
from trt_blendmask.structures import U8


class CoreDevice:
    """`trt_blendmask.cuda.Device` of cuda.core."""

    def __init__(self) -> None:
        with failures(_is_cuda):
            self._context = _primary_context()
        with self.current():
            self._device = cuda.core.Device(0)
            self._device.set_current()  # to the primary context, which it is already
            self.name = self._device.name
            integrated = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
            self.integrated = bool(_done(driver.cuDeviceGetAttribute(integrated, _done(driver.cuDeviceGet(0)))))
        self.library = f"cuda.core {version('cuda-core')}"
        self._pinned = cuda.core.LegacyPinnedMemoryResource()

    @contextmanager
    def current(self) -> Iterator[None]:
        with failures(_is_cuda):
            _done(driver.cuCtxPushCurrent(self._context))
            try:
                yield
            finally:
                _done(driver.cuCtxPopCurrent())

    def stream(self) -> _Stream:
        return _Stream(self._device.create_stream())

    def event(self) -> _Event:
        return _Event(self._device.create_event(options=cuda.core.EventOptions(timing_enabled=True)))

    def memory(self, nbytes: int) -> _Memory:
        return _Memory(nbytes)

    def pinned(self, nbytes: int) -> _PinnedBuffer:
        return _PinnedBuffer(self._pinned.allocate(nbytes))

    def memory_info(self) -> MemoryInfo:
        return MemoryInfo(*_done(driver.cuMemGetInfo()))

    def synchronize(self) -> None:
        _done(driver.cuCtxSynchronize())

    def capture(self, stream: Stream, work: Callable[[], None]) -> _Graph:
        builder = cast(_Stream, stream).core.create_graph_builder()
        try:
            builder.begin_building("thread_local")  # other threads may allocate meanwhile
            work()
            builder.end_building()
            return _Graph(builder.complete())
        except RuntimeError as error:  # so it says that what `work` did cannot be captured
            raise _DriverError(str(error)) from error
        finally:
            with suppress(Exception):  # of a spoilt capture, which this ends, too, it says so once more
                builder.close()


@cache
def _primary_context() -> Any:
    _done(driver.cuInit(0))
    return _done(driver.cuDevicePrimaryCtxRetain(_done(driver.cuDeviceGet(0))))


class _Memory:
    """Not of cuda.core, whose memory is ordered in a stream and taken from a pool: ours is of all streams."""

    def __init__(self, nbytes: int) -> None:
        self.pointer, self.nbytes = int(_done(driver.cuMemAlloc(nbytes))), nbytes

    def free(self) -> None:
        _done(driver.cuMemFree(self.pointer))


class _PinnedBuffer:
    def __init__(self, core: Any) -> None:
        self._core, self.nbytes = core, int(core.size)
        place = int(core.handle)  # of the host
        self.array: U8 = np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(place))
        self.pointer = int(_done(driver.cuMemHostGetDevicePointer(place, 0)))

    def free(self) -> None:
        self._core.close()


class _Event:
    def __init__(self, core: Any) -> None:
        self.core = core

    def synchronize(self) -> None:
        self.core.sync()

    def ms_since(self, earlier: Event) -> float:
        return float(self.core - cast(_Event, earlier).core)


class _Stream:
    def __init__(self, core: Any) -> None:
        self.core, self.handle = core, int(core.handle)

    def upload(self, pointer: int, array: U8) -> None:
        _done(driver.cuMemcpyHtoDAsync(pointer, array.ctypes.data, array.nbytes, self.handle))

    def download(self, array: U8, pointer: int) -> None:
        _done(driver.cuMemcpyDtoHAsync(array.ctypes.data, pointer, array.nbytes, self.handle))

    def copy(self, to: int, pointer: int, nbytes: int) -> None:
        _done(driver.cuMemcpyDtoDAsync(to, pointer, nbytes, self.handle))

    def record(self, event: Event) -> None:
        self.core.record(cast(_Event, event).core)

    def synchronize(self) -> None:
        self.core.sync()

    def free(self) -> None:
        self.core.close()


class _Graph:
    def __init__(self, core: Any) -> None:
        self._core = core

    def launch(self, stream: Stream) -> None:
        self._core.launch(cast(_Stream, stream).core)

    def free(self) -> None:
        self._core.close()


class _DriverError(Exception):
    """What a call through cuda.bindings answered."""


def _done(answer: tuple[Any, ...]) -> Any:
    """The values behind the status of a call: none, the one, or all of them."""
    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise _DriverError(status.name)
    return values[0] if len(values) == 1 else values


def _is_cuda(error: Exception) -> bool:
    return isinstance(error, _DriverError) or type(error).__module__.startswith("cuda.")
