"""A double of an opened engine over a double of a GPU: a Python function in the place of TensorRT. It proves nothing of
TensorRT; it fails as TensorRT does (False in place of an exception, nothing captured before the first enqueue).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from tests.cuda.fake_cuda import FakeDevice
from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.structures import EngineInfo, ModelSpec, TensorSpec

Network = Callable[[Any], dict[str, Any]]
SPEC = ModelSpec(
    kind="deployable",
    class_names=("nut", "bolt"),
    input_hw=(64, 96),
    strides=(8, 16, 32),
    num_bases=4,
    attention_size=7,
    mask_size=8,
    max_detections=100,
    input_dtype="uint8",
    mask_dtype="float32",
    tail="native",
)
IMAGES = TensorSpec("images", "uint8", (1, 64, 96, 3))
OUTPUTS = (
    TensorSpec("count", "int32", (1,)),
    TensorSpec("boxes", "float32", (1, 100, 4)),
    TensorSpec("scores", "float32", (1, 100)),
    TensorSpec("classes", "int32", (1, 100)),
    TensorSpec("masks", "float32", (1, 100, 8, 8)),
)


def picture(count: int, seed: int = 0) -> Any:
    """uint8 [1, 64, 96, 3] for which `network` finds `count` objects, others for each seed."""
    images = np.random.default_rng(seed).integers(0, 256, IMAGES.shape, dtype=np.uint8)
    images[0, 0, 0] = count, seed, 0
    return images


def network(images: Any) -> dict[str, Any]:
    """`count` objects of random boxes, scores, classes and masks; as many as the first byte says."""
    count, seed = (int(v) for v in images[0, 0, 0, :2])
    random = np.random.default_rng([count, seed, int(images.sum())])
    found: dict[str, Any] = {"count": np.array([count], np.int32)}
    for spec in OUTPUTS[1:]:
        value = random.random(spec.shape) * (2 if spec.name == "classes" else 1)
        value[:, count:] = -1 if spec.name == "classes" else 0
        found[spec.name] = value.astype(spec.dtype)
    found["scores"][0, :count] = np.sort(found["scores"][0, :count])[::-1]
    return found


class FakeEngine:
    """Stands for `OpenedEngine`.

    Attributes:
        runs: how often an enqueue was asked for, captured or not. fails: enqueues answer False from now on.
    """

    path = Path("F.engine")

    def __init__(
        self,
        device: FakeDevice | DriverDouble,
        net: Network = network,
        ends: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] = ((IMAGES,), OUTPUTS),
        spec: ModelSpec | None = SPEC,
        flavor: str = "tensorrt",
    ) -> None:
        self.device, self.network, (self.inputs, self.outputs) = device, net, ends
        self.flavor = Flavor(flavor, None, (10, 13, 3, 9))
        self.info = _info(spec, *ends) if spec else None
        self.runs, self.fails, self.closed = 0, False, False
        self._contexts: WeakSet[FakeContext] = WeakSet()

    def context(self, own_graphs: bool = False) -> FakeContext:
        self.device.check(may_capture=False)
        assert not own_graphs or self.flavor.name == "rtx"
        context = FakeContext(self, own_graphs)
        self._contexts.add(context)
        return context

    def work(self, addresses: dict[str, int]) -> None:
        """What a context has the device do."""
        images = self._at(self.inputs[0], addresses).copy()
        for name, value in self.network(images).items():
            target = self._at(next(spec for spec in self.outputs if spec.name == name), addresses)
            assert value.dtype == target.dtype
            assert value.shape == target.shape
            target[...] = value

    def _at(self, spec: TensorSpec, addresses: dict[str, int]) -> Any:
        nbytes = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        return self.device.bytes_at(addresses[spec.name], nbytes).view(spec.dtype).reshape(spec.shape)

    def reason(self) -> str:
        return ": Error Code 1: it was told to fail" if self.fails else ""

    def close(self) -> None:
        self.device.check(may_capture=False)
        assert not self._contexts, "closed before its contexts"
        self.closed = True


class FakeContext:
    """Stands for `IExecutionContext`."""

    def __init__(self, engine: FakeEngine, own_graphs: bool) -> None:
        self._engine, self.own_graphs, self._ready = engine, own_graphs, False
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return pointer % 256 == 0 and name in {spec.name for spec in (*self._engine.inputs, *self._engine.outputs)}

    def execute_async_v3(self, handle: int) -> bool:
        engine = self._engine
        engine.runs += 1
        unbound = {spec.name for spec in (*engine.inputs, *engine.outputs)} - set(self._addresses)
        if engine.fails or engine.closed or unbound or (engine.device.is_capturing(handle) and not self._ready):
            return False
        self._ready = True
        addresses = dict(self._addresses)
        engine.device.give(handle, lambda: engine.work(addresses), *addresses.values())
        return True


class DriverDouble:
    """What an engine needs of a GPU, of fake_libcuda.c, whose device memory is the host's."""

    def __init__(self) -> None:
        self.driver = ctypes.CDLL("libcuda.so.1")
        self._kept: list[Any] = []

    def check(self, may_capture: bool) -> None:  # noqa: ARG002
        assert self.driver.cuCtxGetDevice(ctypes.byref(ctypes.c_int())) == 0, "no current context"

    def is_capturing(self, handle: int) -> bool:
        status = ctypes.c_int()
        assert self.driver.cuStreamIsCapturing(ctypes.c_void_p(handle), ctypes.byref(status)) == 0
        return status.value != 0

    def give(self, handle: int, work: Callable[[], None], *_: int) -> None:
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: work())
        self._kept.append(call)
        assert self.driver.cuLaunchHostFunc(ctypes.c_void_p(handle), call, None) == 0

    def bytes_at(self, pointer: int, nbytes: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(pointer))


def _info(spec: ModelSpec, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> EngineInfo:
    return EngineInfo(
        plan_sha256="0" * 64,
        plan_bytes=1,
        onnx_sha256="0" * 64,
        onnx_path="model.onnx",
        flavor="tensorrt",
        tensorrt_version="10.13.3.9",
        inputs=inputs,
        outputs=outputs,
        spec=spec,
        built_at="2026-01-31T12:00:00+00:00",
        build_seconds=1.0,
    )
