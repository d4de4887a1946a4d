"""TensorRT and TensorRT-RTX on the GPU: an engine, opened, and one `Lane` for each thread that uses it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from trt_blendmask.backends import Array
from trt_blendmask.backends.lane import ALONE, FrameTimes, Lane, Mode, check_ends
from trt_blendmask.cuda import Device, choose
from trt_blendmask.engines.device import find_device
from trt_blendmask.engines.engine import OpenedEngine, open_engine
from trt_blendmask.errors import DataError, SourceUnavailableError, UsageError
from trt_blendmask.structures import ModelSpec, TensorSpec

_TRIALS = 20  # frames by which two modes are compared


@dataclass(frozen=True)
class DeviceArray:
    """An output where the network wrote it, on the device, as others take it (`__cuda_array_interface__`).

    PyCUDA: `GPUArray(a.shape, a.dtype, gpudata=a.pointer)`; CuPy: `cupy.asarray(a)`; PyTorch: `torch.as_tensor(a)`.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        place = (self.pointer, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": place, "strides": None, "version": 3}


def open_session(
    path: str | os.PathLike[str], cuda: str = "core", trust: str = "", rebuild: bool = False
) -> TensorRtSession:
    """Open the engine `path` and make all ready for its first frame.

    Args:
        cuda: "core" or "pycuda", see `trt_blendmask.cuda.choose`. trust, rebuild: see `open_engine`.

    Raises:
        as `open_engine` and `choose`.
    """
    if find_device() is None:  # what is wrong with the file comes first, and then that there is no GPU
        open_engine(path, trust=trust, rebuild=rebuild).close()
    device = choose(cuda)
    with device.current():
        with ALONE:
            opened = open_engine(path, trust=trust, rebuild=rebuild)
        try:
            return TensorRtSession(opened, device)
        except BaseException:
            opened.close()
            raise


class TensorRtSession:
    """`trt_blendmask.backends.Session` of an engine.

    Attributes:
        engine, device: that it stands on; closed with the session.
    """

    abreast = 2  # one computes while the other copies, or its thread is busy with the picture

    def __init__(self, engine: OpenedEngine, device: Device, original: TensorRtSession | None = None) -> None:
        """Make a lane of the fastest mode, or of that of `original`, whose twin this is.

        Args:
            engine: closed with this session, unless it is a twin.

        Raises:
            DataError: inputs or outputs that are not of a deployable model.
            SourceUnavailableError: the memory of the GPU is full, or it cannot run the engine.
        """
        check_ends(engine)
        self.path, self.inputs, self.outputs = engine.path, engine.inputs, engine.outputs
        self.engine, self.device, self._original = engine, device, original
        spec = engine.info.spec if engine.info else spec_of_ends(engine.inputs, engine.outputs)
        self.metadata = spec.to_json() if spec else ""
        self._twins: list[TensorRtSession] = []
        self._busy, self._closed = threading.Lock(), False
        if original is None:
            self._lane, why = _fastest(engine, device)
            self.how = f"{engine.flavor.title} on {device.name} through {device.library}: {why}"
        else:
            self._lane, self.how = Lane(engine, device, original._lane.mode), original.how

    def input_buffer(self) -> Array:
        return self._lane.images

    def run(self, images: Array) -> dict[str, Array]:
        """As `Session.run`; `images` may also be an array on the device, such as a PyCUDA GPUArray.

        Raises:
            DataError: another shape or dtype, or the session was closed.
            UsageError: two threads at once.
            SourceUnavailableError: the GPU failed.
        """
        with self._alone():
            lane, interface = self._lane, getattr(images, "__cuda_array_interface__", None)
            if interface is not None:
                return lane.run_on_device(self._pointer(interface))
            if images is not lane.images:
                self._check(images.shape, images.dtype)
                lane.images[...] = images
            return lane.run()

    def device_outputs(self) -> dict[str, DeviceArray]:
        """All outputs of the last frame where the network wrote them, valid until the next one."""
        with self._alone():
            pointers = self._lane.pointers()
        return {spec.name: DeviceArray(pointers[spec.name], spec.shape, np.dtype(spec.dtype)) for spec in self.outputs}

    def times(self) -> FrameTimes:
        """Run what the input buffer holds, and say how long its parts took."""
        with self._alone():
            return self._lane.times()

    def twin(self) -> TensorRtSession:
        owner = self._original or self
        twin = TensorRtSession(owner.engine, owner.device, owner)
        owner._twins.append(twin)
        return twin

    def close(self) -> None:
        for twin in self._twins:
            twin.close()
        with self._busy:
            if self._closed:
                return
            self._closed = True
            self._lane.close()
            if self._original is None:
                with self.device.current():
                    self.engine.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                f"Expected one thread at a time to use '{self.path}', but two do: give each its own twin()."
            )
        try:
            if self._closed:
                raise DataError(f"The model '{self.path}' was closed: load it again.")
            yield
        finally:
            self._busy.release()

    def _pointer(self, interface: dict[str, Any]) -> int:
        """Where the input lies on the device."""
        shape, dtype, strides = tuple(interface["shape"]), np.dtype(interface["typestr"]), interface.get("strides")
        self._check(shape, dtype)
        if strides is not None and tuple(strides) != np.empty(shape, dtype).strides:
            raise DataError(f"Expected a contiguous array for '{self.inputs[0].name}', got one with strides {strides}.")
        return int(interface["data"][0])

    def _check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        spec = self.inputs[0]
        if shape != spec.shape or dtype != np.dtype(spec.dtype):
            raise DataError(f"Expected {spec.dtype} {list(spec.shape)} for '{spec.name}', got {dtype} {list(shape)}.")


def spec_of_ends(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelSpec | None:
    """What the runtime must know of a deployable engine that has no passport; None where its ends do not tell.

    Only for uint8 input, whose normalisation is in the engine. The classes have no names.
    """
    ends = {spec.name: spec for spec in (*inputs, *outputs)}
    images, masks = ends.get("images"), ends.get("masks")
    if images is None or masks is None or images.dtype != "uint8" or len(images.shape) != 4 or len(masks.shape) != 4:
        return None
    return ModelSpec(
        kind="deployable",
        class_names=("class 0",),
        input_hw=(images.shape[1], images.shape[2]),
        strides=(8, 16, 32, 64, 128),
        num_bases=4,
        attention_size=14,
        mask_size=masks.shape[2],
        max_detections=masks.shape[1],
        input_dtype="uint8",
        mask_dtype=masks.dtype,
    )


def _fastest(engine: OpenedEngine, device: Device) -> tuple[Lane, str]:
    """A lane of the mode that takes the least time here, and why it was taken."""
    modes = [Mode(), Mode(mapped=True)] if device.integrated else [Mode()]
    if engine.flavor.name == "rtx":
        modes += [replace(mode, own_graphs=True) for mode in modes]
    best, best_ms, others = Lane(engine, device, modes[0]), 0.0, []
    if len(modes) > 1:
        best_ms = _milliseconds(best)
    for mode in modes[1:]:
        try:
            lane = Lane(engine, device, mode)
        except SourceUnavailableError:  # no memory for a second one beside the first, which runs
            continue
        ms = _milliseconds(lane)
        if ms < best_ms:
            best, best_ms, lane, ms = lane, ms, best, best_ms
        others.append(f"{lane.mode} {ms:.2f} ms")
        lane.close()
    return best, f"{best}, {best_ms:.2f} ms against {', '.join(others)}" if others else str(best)


def _milliseconds(lane: Lane) -> float:
    """Of a frame, from the picture in the host's memory to the results there; the median of some."""
    noise = np.random.default_rng(0).integers(0, 255, lane.images.shape).astype(lane.images.dtype)
    times = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        lane.images[...] = noise
        for value in lane.run().values():
            value.copy()
        times.append(1e3 * (time.perf_counter() - began))
    return median(times)
