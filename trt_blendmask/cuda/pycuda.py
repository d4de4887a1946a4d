"""CUDA through PyCUDA: in the context that the caller has made current with it, or else in the primary one, which the
CUDA runtime shares; never in a second one of our own.

A PyCUDA context may be current in several threads, each of which must take it off again, or PyCUDA ends the process
when the thread ends; and memory can be freed only where its context is current. `current()` sees to both. PyCUDA has no
graphs, so these go to the driver's own functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import numpy as np
import pycuda
import pycuda.driver as cuda

from trt_blendmask.cuda import Event, MemoryInfo, Stream, failures
from trt_blendmask.structures import U8

_CAPTURE_THREAD_LOCAL = 1  # cuda.h; other threads may allocate meanwhile


class PyCudaDevice:
    """`trt_blendmask.cuda.Device` of PyCUDA."""

    def __init__(self) -> None:
        with failures(_is_cuda):
            cuda.init()
            self._context = cuda.Context.get_current() or _primary_context()
        with self.current():
            device = cuda.Context.get_device()
            self.name = device.name()
            self.integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        self.library = f"PyCUDA {pycuda.VERSION_TEXT}"
        self._driver = ctypes.CDLL("libcuda.so.1")

    @contextmanager
    def current(self) -> Iterator[None]:
        with failures(_is_cuda):
            self._context.push()
            try:
                yield
            finally:
                cuda.Context.pop()

    def stream(self) -> _Stream:
        return _Stream(cuda.Stream(1))  # CU_STREAM_NON_BLOCKING: does not wait for the default stream

    def event(self) -> _Event:
        return _Event(cuda.Event())

    def memory(self, nbytes: int) -> _Buffer:
        return _Buffer(cuda.mem_alloc(nbytes), nbytes)

    def pinned(self, nbytes: int) -> _PinnedBuffer:
        return _PinnedBuffer(nbytes)

    def memory_info(self) -> MemoryInfo:
        return MemoryInfo(*cuda.mem_get_info())

    def synchronize(self) -> None:
        cuda.Context.synchronize()

    def capture(self, stream: Stream, work: Callable[[], None]) -> _Graph:
        graph = ctypes.c_void_p()
        handle = ctypes.c_void_p(stream.handle)
        self._call("cuStreamBeginCapture_v2", handle, _CAPTURE_THREAD_LOCAL)
        try:
            work()
        finally:
            self._call("cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            ready = ctypes.c_void_p()
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return _Graph(self._call, ready)

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status:
            name = ctypes.c_char_p()
            self._driver.cuGetErrorName(status, ctypes.byref(name))
            raise _DriverError(f"{function} failed: {(name.value or b'unknown').decode()}")


@cache
def _primary_context() -> Any:
    """Once: PyCUDA leaves a primary context on the thread's stack when it lets go of it."""
    return cuda.Device(0).retain_primary_context()


class _Buffer:
    def __init__(self, allocation: Any, nbytes: int) -> None:
        self._allocation, self.pointer, self.nbytes = allocation, int(allocation), nbytes

    def free(self) -> None:
        self._allocation.free()


class _PinnedBuffer:
    def __init__(self, nbytes: int) -> None:
        self.array: U8 = cuda.pagelocked_empty(nbytes, np.uint8, mem_flags=cuda.host_alloc_flags.DEVICEMAP)
        self._allocation = self.array.base
        self.pointer, self.nbytes = int(self._allocation.get_device_pointer()), nbytes

    def free(self) -> None:
        self._allocation.free()


class _Event:
    def __init__(self, event: Any) -> None:
        self.event = event

    def synchronize(self) -> None:
        self.event.synchronize()

    def ms_since(self, earlier: Event) -> float:
        return float(self.event.time_since(cast(_Event, earlier).event))


class _Stream:
    def __init__(self, stream: Any) -> None:
        self._stream, self.handle = stream, int(stream.handle)

    def upload(self, pointer: int, array: U8) -> None:
        cuda.memcpy_htod_async(pointer, array, self._stream)

    def download(self, array: U8, pointer: int) -> None:
        cuda.memcpy_dtoh_async(array, pointer, self._stream)

    def copy(self, to: int, pointer: int, nbytes: int) -> None:
        cuda.memcpy_dtod_async(to, pointer, nbytes, self._stream)

    def record(self, event: Event) -> None:
        cast(_Event, event).event.record(self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def free(self) -> None:
        self._stream = None  # PyCUDA destroys it with its last reference, here, where the context is current


class _Graph:
    def __init__(self, call: Callable[..., None], ready: ctypes.c_void_p) -> None:
        self._call, self._ready = call, ready

    def launch(self, stream: Stream) -> None:
        self._call("cuGraphLaunch", self._ready, ctypes.c_void_p(stream.handle))

    def free(self) -> None:
        self._call("cuGraphExecDestroy", self._ready)


class _DriverError(Exception):
    """What a function of the driver answered."""


def _is_cuda(error: Exception) -> bool:
    return isinstance(error, (cuda.Error, _DriverError))
