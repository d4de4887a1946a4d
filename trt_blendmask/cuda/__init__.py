"""The little of CUDA that the runtime needs, as one protocol: `cuda_core.py` (default) and `pycuda.py` satisfy it.

A primary context, once made, is kept until the process ends, as the CUDA runtime keeps it. Everything of a device is
made, used and freed inside `with device.current()`: that makes its context the thread's own
for so long, whatever thread it is and whatever context was there before, and turns the library's exceptions into ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from trt_blendmask.engines.device import find_device
from trt_blendmask.errors import SourceUnavailableError, UsageError, first_line
from trt_blendmask.structures import U8

LIBRARIES = ("core", "pycuda")


@dataclass(frozen=True)
class MemoryInfo:
    """Bytes of the device's memory: not in use by anybody, and in all."""

    free_bytes: int
    total_bytes: int


class Buffer(Protocol):
    """Memory of the device. `pointer`: its address there, aligned to 256 bytes."""

    pointer: int
    nbytes: int

    def free(self) -> None: ...


class PinnedBuffer(Buffer, Protocol):
    """Page-locked memory of the host, mapped: `array` (uint8 [nbytes]) here is `pointer` on the device."""

    array: U8


class Event(Protocol):
    """A mark in a stream that has a time."""

    def synchronize(self) -> None:
        """Wait until the stream has come to the mark."""

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds of the device between two marks that it has passed."""


class Stream(Protocol):
    """Work that the device does in the order in which it was given; each call returns before it is done.

    Attributes:
        handle: the CUstream, as TensorRT takes it.
    """

    handle: int

    def upload(self, pointer: int, array: U8) -> None:
        """Copy pinned memory (a part of a `PinnedBuffer.array`) to the device."""

    def download(self, array: U8, pointer: int) -> None:
        """Copy from the device to pinned memory."""

    def copy(self, to: int, pointer: int, nbytes: int) -> None:
        """Copy within the device."""

    def record(self, event: Event) -> None: ...

    def synchronize(self) -> None:
        """Wait until all is done."""

    def free(self) -> None: ...


class Graph(Protocol):
    """Captured work, ready to be done again by one call; reads and writes what the addresses hold by then."""

    def launch(self, stream: Stream) -> None: ...

    def free(self) -> None: ...


class Device(Protocol):
    """One GPU and the context in which its work is done.

    Attributes:
        name: "Orin". library: what the calls go through, with its version. integrated: shares its memory with the CPU.
    """

    name: str
    library: str
    integrated: bool

    def current(self) -> AbstractContextManager[None]:
        """See above.

        Raises:
            SourceUnavailableError: what was done inside failed on the device.
        """

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def memory(self, nbytes: int) -> Buffer: ...

    def pinned(self, nbytes: int) -> PinnedBuffer: ...

    def memory_info(self) -> MemoryInfo: ...

    def synchronize(self) -> None:
        """Wait for all streams of the context, the caller's own included."""

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """What `work` gives to `stream`, as a graph; none of it is done yet."""


def choose(library: str = "core") -> Device:
    """The first GPU that the driver shows (CUDA_VISIBLE_DEVICES chooses), through cuda.core or PyCUDA.

    Raises:
        UsageError: neither "core" nor "pycuda".
        SourceUnavailableError: the library is not installed, or there is no GPU that it can use.
    """
    if library not in LIBRARIES:
        raise UsageError(f"Expected --cuda to be {' or '.join(LIBRARIES)}, got '{library}'.")
    if find_device() is None:
        raise SourceUnavailableError(
            "Expected a GPU, but there is no CUDA driver, or it finds none. Type trt-blendmask doctor to see why."
        )
    if library == "core":
        with _installed("cuda.core", "cuda"):
            from trt_blendmask.cuda.cuda_core import CoreDevice

            return CoreDevice()
    with _installed("PyCUDA", "pycuda"):
        from trt_blendmask.cuda.pycuda import PyCudaDevice

        return PyCudaDevice()


@contextmanager
def failures(of_library: Callable[[Exception], bool]) -> Iterator[None]:
    """Turn the exceptions that `of_library` recognises into ours: the one place where that happens.

    Raises:
        SourceUnavailableError: instead of one of them.
    """
    try:
        yield
    except Exception as error:
        if not of_library(error):
            raise
        text = first_line(error)
        full = "out_of_memory" in text.lower().replace(" ", "_")
        advice = (
            "Its memory is full: close other programs, or build the engine for a smaller input or with --workspace MiB."
            if full
            else "Type trt-blendmask doctor to see the state of the driver."
        )
        raise SourceUnavailableError(
            f"Expected the GPU to do the work, but CUDA says: {text[:300]}. {advice}"
        ) from error


@contextmanager
def _installed(name: str, extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise SourceUnavailableError(
            f"Expected {name} for the GPU, but it cannot be imported: {first_line(error)}. "
            f"Type: pip install 'trt-blendmask[{extra}]'"
        ) from error
