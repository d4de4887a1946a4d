"""A double of a GPU, for tests of what we do with one, on machines that have none. It is host memory and Python lists:
it proves nothing of CUDA, of a real back end or of speed. What it does is judge: work is done only when somebody waits
for it, so who reads too early reads garbage; copies from or to memory that is not pinned, not allocated, freed or too
short fail, as does all that happens outside `device.current()`, and to free memory while work is pending.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trt_blendmask.cuda import MemoryInfo, failures
from trt_blendmask.structures import U8

GARBAGE = 0xCD
TOTAL = 1 << 24


class FakeCudaError(Exception):
    """What a CUDA library would raise."""


class FakeDevice:
    """`trt_blendmask.cuda.Device` of host memory.

    Attributes:
        counts: calls that allocate or create something, by name. live: what is not freed yet.
        copied: bytes, by direction. capturable: whether capturing works.
    """

    name, library = "Fake", "a double"

    def __init__(self, integrated: bool = False, total: int = TOTAL) -> None:
        self.integrated, self.total, self.capturable = integrated, total, True
        self.counts: Counter[str] = Counter()
        self.copied: Counter[str] = Counter()
        self.live: dict[int, Any] = {}
        self.streams: dict[int, FakeStream] = {}
        self._thread = threading.local()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    @contextmanager
    def current(self) -> Iterator[None]:
        with failures(lambda error: isinstance(error, FakeCudaError)):
            self._thread.depth = getattr(self._thread, "depth", 0) + 1
            try:
                yield
            finally:
                self._thread.depth -= 1

    def check(self, may_capture: bool = True) -> None:
        """Raise what CUDA would for a call from this thread, now."""
        _require(getattr(self._thread, "depth", 0) > 0, "invalid device context")
        ours = [s for s in self.streams.values() if s.captured is not None and s.capturer == threading.get_ident()]
        _require(may_capture or not ours, "operation not permitted when stream is capturing")

    def stream(self) -> FakeStream:
        self.check(may_capture=False)
        stream = FakeStream(self, next(self._numbers))
        self.counts["stream"] += 1
        self.streams[stream.handle] = stream
        return stream

    def event(self) -> FakeEvent:
        self.check(may_capture=False)
        self.counts["event"] += 1
        return FakeEvent(self)

    def memory(self, nbytes: int) -> FakeBuffer:
        self.counts["memory"] += 1
        return FakeBuffer(self, nbytes, "device")

    def pinned(self, nbytes: int) -> FakeBuffer:
        self.counts["pinned"] += 1
        return FakeBuffer(self, nbytes, "host")

    def memory_info(self) -> MemoryInfo:
        self.check()
        return MemoryInfo(self.total - self.used(), self.total)

    def synchronize(self) -> None:
        """Not while any thread captures, whose work it spoils."""
        self.check()
        captured = [stream for stream in self.streams.values() if stream.captured is not None]
        for stream in captured:
            stream.spoilt = True
        _require(not captured, "operation not permitted when stream is capturing")
        for stream in list(self.streams.values()):
            stream.finish()

    def capture(self, stream: FakeStream, work: Callable[[], None]) -> FakeGraph:
        self.check()
        _require(self.capturable, "operation not permitted when stream is capturing")
        stream.captured, stream.capturer, stream.spoilt = [], threading.get_ident(), False
        try:
            work()
            _require(not stream.spoilt, "the capture was invalidated")
            self.counts["graph"] += 1
            return FakeGraph(self, stream.captured)
        finally:
            stream.captured = None

    def is_capturing(self, handle: int) -> bool:
        return self.streams[handle].captured is not None

    def give(self, handle: int, work: Callable[[], None], *addresses: int) -> None:
        """What a library does that has only the handle of a stream."""
        self.streams[handle].give(work, *addresses)

    def used(self) -> int:
        """Bytes of device memory."""
        with self._lock:
            return sum(b.nbytes for b in self.live.values() if isinstance(b, FakeBuffer) and b.kind == "device")

    def bytes_at(self, pointer: int, nbytes: int, kinds: tuple[str, ...] = ("device", "host")) -> U8:
        """The memory at an address, which must be allocated, all of it, as one of `kinds`."""
        with self._lock:
            for buffer in self.live.values():
                if isinstance(buffer, FakeBuffer) and buffer.kind in kinds:
                    offset = pointer - buffer.pointer
                    if offset >= 0 and offset + nbytes <= buffer.nbytes:
                        return buffer.array[offset : offset + nbytes]
        raise FakeCudaError(f"illegal address, or not pinned: {nbytes} bytes at {pointer:#x}")


class FakeBuffer:
    def __init__(self, device: FakeDevice, nbytes: int, kind: str) -> None:
        device.check(may_capture=False)
        full = kind == "device" and device.used() + nbytes > device.total
        _require(not full and nbytes < 1 << 40, "out of memory")
        block = np.full(nbytes + 256, GARBAGE, np.uint8)
        first = -block.ctypes.data % 256
        self.array, self.nbytes, self.kind = block[first : first + nbytes], nbytes, kind
        self.pointer = self.array.ctypes.data
        self._device = device
        device.live[id(self)] = self

    def free(self) -> None:
        self._device.check()
        _require(id(self) in self._device.live, "freed twice")
        busy = any(stream.pending for stream in self._device.streams.values() if stream.uses(self))
        _require(not busy, "freed while work is pending")
        self.array[:] = GARBAGE
        del self._device.live[id(self)]


class FakeEvent:
    def __init__(self, device: FakeDevice) -> None:
        self._device, self.stream, self.time = device, None, 0.0

    def synchronize(self) -> None:
        self._device.check(may_capture=False)
        if self.stream is not None:
            self.stream.finish()

    def ms_since(self, earlier: FakeEvent) -> float:
        _require(bool(self.time and earlier.time), "not ready")
        return 1e3 * (self.time - earlier.time)


class FakeStream:
    """Attributes:
    pending: what waits to be done. captured: what a graph gets, while one is captured.
    """

    def __init__(self, device: FakeDevice, handle: int) -> None:
        self._device, self.handle, self.capturer = device, handle, 0
        self.pending: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.spoilt = False
        self._touched: set[int] = set()
        self._lock = threading.RLock()
        device.live[id(self)] = self

    def give(self, work: Callable[[], None], *addresses: int) -> None:
        """Put work at the end, or into the graph that is being captured."""
        self._device.check()
        _require(id(self) in self._device.live, "invalid stream")
        with self._lock:
            (self.pending if self.captured is None else self.captured).append(work)
            self._touched.update(addresses)

    def upload(self, pointer: int, array: U8) -> None:
        to = self._device.bytes_at(pointer, array.nbytes)
        source = self._device.bytes_at(array.ctypes.data, array.nbytes, ("host",))
        self.give(lambda: self._copy(to, source, "upload"), pointer, array.ctypes.data)

    def download(self, array: U8, pointer: int) -> None:
        to = self._device.bytes_at(array.ctypes.data, array.nbytes, ("host",))
        source = self._device.bytes_at(pointer, array.nbytes)
        self.give(lambda: self._copy(to, source, "download"), pointer, array.ctypes.data)

    def copy(self, to: int, pointer: int, nbytes: int) -> None:
        target, source = self._device.bytes_at(to, nbytes), self._device.bytes_at(pointer, nbytes)
        self.give(lambda: self._copy(target, source, "copy"), to, pointer)

    def record(self, event: FakeEvent) -> None:
        def mark() -> None:
            event.time = time.perf_counter()

        event.stream, event.time = self, 0.0
        self.give(mark)

    def synchronize(self) -> None:
        self.spoilt = self.captured is not None
        self._device.check(may_capture=False)
        _require(not self.spoilt, "operation not permitted when stream is capturing")
        self.finish()

    def finish(self) -> None:
        """Do what is pending, in order."""
        with self._lock:
            while self.pending:
                self.pending.pop(0)()
            self._touched.clear()

    def uses(self, buffer: FakeBuffer) -> bool:
        return any(0 <= address - buffer.pointer < buffer.nbytes for address in self._touched)

    def free(self) -> None:
        self._device.check()
        _require(not self.pending, "destroyed while work is pending")
        del self._device.live[id(self)], self._device.streams[self.handle]

    def _copy(self, to: U8, source: U8, direction: str) -> None:
        to[:] = source
        self._device.copied[direction] += to.nbytes


class FakeGraph:
    def __init__(self, device: FakeDevice, work: list[Callable[[], None]]) -> None:
        self._device, self._work = device, work
        device.live[id(self)] = self

    def launch(self, stream: FakeStream) -> None:
        _require(id(self) in self._device.live, "invalid graph")
        for work in self._work:
            stream.give(work)

    def free(self) -> None:
        self._device.check()
        del self._device.live[id(self)]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise FakeCudaError(what)
