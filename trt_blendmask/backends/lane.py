"""One frame on the GPU: pinned input, to the device, one enqueue, back to pinned outputs; captured once, then replayed.

A lane has buffers, a stream and an execution context of its own, so two lanes of one engine overlap: while one
computes, the other copies, and its thread letterboxes or draws. All of it is allocated before the first frame.

All outputs lie in one block, the masks last, so that one copy brings everything of the first 32 slots: of 100 slots of
56 x 56 float32 that is 0.4 MB instead of 1.25 MB, or 40 us instead of 125 us at 10 GB/s. To fetch the count first and
then exactly as many would cost every frame a second round trip to the device, some 20 us: as long as 0.2 MB more. Only
frames with more than 32 detections pay it, for what is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import finalize

import numpy as np

from trt_blendmask.backends import Array
from trt_blendmask.cuda import Buffer, Device, Graph, PinnedBuffer, Stream
from trt_blendmask.engines.engine import DTYPES
from trt_blendmask.errors import DataError, SourceUnavailableError, TrtBlendMaskError
from trt_blendmask.structures import TensorSpec

FIRST_SLOTS = 32
ALONE = threading.RLock()  # to wait for the whole device in one thread spoils what another one captures
_HINT = "Build the engine of a model of ours: trt-blendmask build MODEL.onnx -o F.engine"
_ALIGNMENT = 256  # of the addresses that TensorRT takes


@dataclass(frozen=True)
class Mode:
    """How a lane works.

    Attributes:
        mapped: the network reads and writes the host's pinned memory itself; only for a GPU that shares that memory.
        own_graphs: TensorRT-RTX captures the network into a CUDA graph; else the lane captures the whole frame.
    """

    mapped: bool = False
    own_graphs: bool = False

    @property
    def memory(self) -> str:
        return "mapped memory" if self.mapped else "copied memory"

    def __str__(self) -> str:
        return f"{'a CUDA graph of TensorRT-RTX' if self.own_graphs else 'one CUDA graph a frame'}, {self.memory}"


@dataclass(frozen=True)
class FrameTimes:
    """Milliseconds of one frame.

    Attributes:
        upload, compute, download: of the device, one after the other, without a graph.
        launch: of the CPU, to hand a frame over, as for each. frame: of the device for that, after another one.
    """

    upload: float
    compute: float
    download: float
    launch: float
    frame: float


@dataclass(frozen=True)
class Block:
    """Where the outputs lie in one block of memory.

    Attributes:
        offsets: bytes, by name. nbytes: of the block. first_bytes: of the copy that each frame makes.
        slot_bytes: of one slot of `masks`, 0 where there are no slots to leave out.
    """

    offsets: dict[str, int]
    nbytes: int
    first_bytes: int
    slot_bytes: int

    @staticmethod
    def of(outputs: tuple[TensorSpec, ...]) -> Block:
        """The block of `outputs`, the largest one last."""
        offsets, end = {}, 0
        for last in sorted(outputs, key=nbytes_of):
            offsets[last.name] = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = offsets[last.name] + nbytes_of(last)
        if last.name != "masks" or "count" not in offsets or len(last.shape) != 4 or last.shape[0] != 1:
            return Block(offsets, end, end, 0)
        slot = nbytes_of(last) // last.shape[1]
        return Block(offsets, end, offsets["masks"] + slot * min(FIRST_SLOTS, last.shape[1]), slot)


class Execution:
    """The engine's execution context, with its inputs and outputs where the lane has them."""

    def __init__(self, engine: Any, own_graphs: bool, addresses: dict[str, int]) -> None:
        self._engine, self._context = engine, engine.context(own_graphs)
        for name, pointer in addresses.items():
            if not self._context.set_tensor_address(name, pointer):
                raise SourceUnavailableError(f"TensorRT refused the memory for '{name}' of '{engine.path}'.")

    def enqueue(self, stream: Stream) -> None:
        if not self._context.execute_async_v3(stream.handle):
            raise SourceUnavailableError(
                f"Expected the GPU to run '{self._engine.path}', but TensorRT could not{self._engine.reason()}. "
                "Build the engine again on this machine: trt-blendmask build MODEL.onnx -o F.engine"
            )

    def profile(self, profiler: Any) -> None:
        """Tell `profiler`, an IProfiler, at each enqueue from now on how long the layers took."""
        self._context.profiler = profiler

    def free(self) -> None:
        self._context = None


T = TypeVar("T", Buffer, PinnedBuffer, Stream, Graph, Execution)


class Lane:
    """See above; for one thread at a time. What is not closed is freed with the lane, or when the process ends.

    Attributes:
        images: the input in pinned memory, to be filled before `run`.
        captured: whether a frame is one graph.
    """

    def __init__(self, engine: Any, device: Device, mode: Mode) -> None:
        """Allocate all, run the network once and capture the frame.

        Args:
            engine: an `OpenedEngine` with static shapes.

        Raises:
            SourceUnavailableError: the memory of the GPU is full, or it cannot run the engine.
        """
        self._device, self.mode = device, mode
        self._block = Block.of(engine.outputs)
        self._device_graph: Graph | None = None
        self._refusal = ""
        self._things = ExitStack()
        with ALONE, device.current():
            self._stream = self._kept(device.stream())
            self._free = finalize(self, _free, device, self._stream, self._things)
            try:
                self._allocate(engine)
                self._frame()  # TensorRT sets itself up at the first one, which therefore cannot be captured
                self._stream.synchronize()
                self._graph = None if mode.own_graphs else self._capture(self._frame)
            except BaseException:
                self.close()
                raise
        self.captured = self._graph is not None

    def run(self) -> dict[str, Array]:
        """Do the frame that `images` holds.

        Returns:
            The outputs, valid until the next frame; of `masks` only the filled slots.
        """
        with self._device.current():
            self._launch(self._graph, self._frame)
            return self._finish()

    def run_on_device(self, pointer: int) -> dict[str, Array]:
        """`run` for an input that the device has at `pointer` already, contiguous; the first call captures a graph."""
        with self._device.current():
            with ALONE:
                self._device.synchronize()  # whoever fills that memory may do so in any stream
                if self._device_graph is None and self.captured:
                    self._device_graph = self._capture(self._results)
            self._stream.copy(self._input.pointer, pointer, self._input.nbytes)
            self._launch(self._device_graph, self._results)
            return self._finish()

    def __str__(self) -> str:
        return f"{self.mode.memory}, not captured ({self._refusal})" if self._refusal else str(self.mode)

    def times(self) -> FrameTimes:
        """How long the parts of a frame take; the events cost some microseconds, so not for each frame."""
        with self._device.current():
            return self._times()

    def pointers(self) -> dict[str, int]:
        """Addresses of the outputs on the device, whole and valid until the next frame."""
        return {name: self._output.pointer + offset for name, offset in self._block.offsets.items()}

    def close(self) -> None:
        """Free all; closing twice is harmless."""
        self._free()

    def _allocate(self, engine: Any) -> None:
        device, block, images = self._device, self._block, engine.inputs[0]
        self._host_input = self._kept(device.pinned(nbytes_of(images)))
        self._host_output = self._kept(device.pinned(block.nbytes))
        self._input: Buffer = self._host_input
        self._output: Buffer = self._host_output
        if not self.mode.mapped:
            self._input = self._kept(device.memory(nbytes_of(images)))
            self._output = self._kept(device.memory(block.nbytes))
        self.images = _view(self._host_input, images, 0)
        self.images[...] = 0
        self._outputs = {spec.name: _view(self._host_output, spec, block.offsets[spec.name]) for spec in engine.outputs}
        addresses = {images.name: self._input.pointer, **self.pointers()}
        self._execution = self._kept(Execution(engine, self.mode.own_graphs, addresses))

    def _kept(self, thing: T) -> T:
        self._things.callback(thing.free)
        return thing

    def _times(self) -> FrameTimes:
        marks, stream = [self._device.event() for _ in range(6)], self._stream
        for mark, work in zip(marks, (self._upload, self._enqueue, self._download), strict=False):
            stream.record(mark)
            work()
        stream.record(marks[3])
        stream.synchronize()
        self._launch(self._graph, self._frame)  # keeps the device busy while it is handed the next one
        stream.record(marks[4])
        began = time.perf_counter()
        self._launch(self._graph, self._frame)
        launch = 1e3 * (time.perf_counter() - began)
        stream.record(marks[5])
        stream.synchronize()
        upload, compute, download = (marks[i + 1].ms_since(marks[i]) for i in range(3))
        return FrameTimes(upload, compute, download, launch, marks[5].ms_since(marks[4]))

    def _capture(self, work: Callable[[], None]) -> Graph | None:
        try:
            with self._device.current():
                return self._kept(self._device.capture(self._stream, work))
        except TrtBlendMaskError as error:  # of some layers; what is wrong with the frame itself showed before
            self._refusal = str(error)
            return None

    def _launch(self, graph: Graph | None, work: Callable[[], None]) -> None:
        if graph is None:
            work()
        else:
            graph.launch(self._stream)

    def _frame(self) -> None:
        self._upload()
        self._results()

    def _results(self) -> None:
        self._enqueue()
        self._download()

    def _upload(self) -> None:
        if not self.mode.mapped:
            self._stream.upload(self._input.pointer, self._host_input.array)

    def _enqueue(self) -> None:
        self._execution.enqueue(self._stream)

    def _download(self) -> None:
        if not self.mode.mapped:
            self._stream.download(self._host_output.array[: self._block.first_bytes], self._output.pointer)

    def _finish(self) -> dict[str, Array]:
        self._stream.synchronize()
        block, outputs = self._block, self._outputs
        if not block.slot_bytes:
            return dict(outputs)
        masks, first = outputs["masks"], block.first_bytes
        filled = min(max(int(outputs["count"].flat[0]), 0), masks.shape[1])
        end = block.offsets["masks"] + filled * block.slot_bytes
        if end > first and not self.mode.mapped:
            self._stream.download(self._host_output.array[first:end], self._output.pointer + first)
            self._stream.synchronize()
        return {**outputs, "masks": masks[:, :filled]}


def _free(device: Device, stream: Stream, things: ExitStack) -> None:
    with suppress(SourceUnavailableError), device.current():  # a GPU that has failed, and was said to have, fails again
        things.callback(stream.synchronize)  # the last comes first
        things.close()


def check_ends(engine: Any) -> None:
    """Refuse an engine that a lane has no memory for: with shapes that are not fixed, or types that NumPy lacks.

    Raises:
        DataError: it is one.
    """
    if not (engine.inputs and engine.outputs):
        raise DataError(f"Expected an engine with inputs and outputs, but '{engine.path}' lacks them. {_HINT}")
    for spec in (*engine.inputs, *engine.outputs):
        if min(spec.shape, default=1) < 1 or spec.dtype not in DTYPES.values():
            raise DataError(
                f"Expected fixed shapes and types of NumPy in '{engine.path}', but '{spec.name}' is {spec.dtype} "
                f"{list(spec.shape)}. {_HINT}"
            )


def _view(buffer: PinnedBuffer, spec: TensorSpec, offset: int) -> Array:
    return buffer.array[offset : offset + nbytes_of(spec)].view(spec.dtype).reshape(spec.shape)


def nbytes_of(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
