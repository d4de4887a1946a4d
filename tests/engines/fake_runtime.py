"""A test double of the runtime half of TensorRT, for our error handling and nothing else: it runs no network.

It has the shapes in which the real module fails (None in place of an exception, with the reason in the logger only or
not even there; an exception; an engine that gives no context), and it counts how often it was called.
"""

from __future__ import annotations

import enum
import hashlib
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_blendmask.engines.device import Device
from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.engines.passport import publish
from trt_blendmask.structures import EngineInfo, ModelSpec, TensorSpec

DEVICE = Device("Pretend GPU", "8.9", "580.65.06", "13.0")
SPEC = ModelSpec("deployable", ("rod", "clip"), (64, 96), (8, 16), num_bases=4, attention_size=14, max_detections=5)
INPUTS = (TensorSpec("images", "uint8", (1, 64, 96, 3)),)
OUTPUTS = (TensorSpec("count", "int32", (1,)), TensorSpec("masks", "float32", (1, 5, 56, 56)))
VERSION = (10, 13, 3, 9)

Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL", "BF16"])
TYPES = {"uint8": DataType.UINT8, "int32": DataType.INT32, "float32": DataType.FLOAT}


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        pass


class FakeTensorRT:
    """In the place of the module.

    Attributes:
        fails: "" works; "none": None and a line in the logger; "silently": None and nothing; "raises": an exception;
            "context": an engine without contexts; "runtime": no runtime; "lean": no lean runtime; "plugin": a library
            that registers nothing; "ends": an engine with other tensors.
        calls: names of what was called, in order. deserialized: the bytes that were.
        says: what "none" writes into the logger.
        plugins: libraries given to the registry. host_code, dla_core: of the runtime at deserialisation.
    """

    __name__ = "fake_tensorrt"
    TensorIOMode, DataType, ILogger = TensorIOMode, DataType, ILogger

    def __init__(
        self, fails: str = "", says: str = "Error Code 1: CuTensor (Internal cuTensor permutate execute failed)"
    ) -> None:
        self.fails, self.says = fails, says
        self.calls: list[str] = []
        self.deserialized: list[bytes] = []
        self.plugins: list[str] = []
        self.host_code = False
        self.dla_core = -1
        self.CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    def Runtime(self, logger: Any) -> Any:  # noqa: N802 (TensorRT's name)
        self.calls.append("Runtime")
        if self.fails == "runtime":
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return _Runtime(self, logger)

    def get_plugin_registry(self) -> Any:
        self.calls.append("get_plugin_registry")
        return types.SimpleNamespace(get_creator=self._creator, load_library=self._load)

    def _creator(self, *_: str) -> object:
        return self.plugins[0] if self.plugins else None

    def _load(self, path: str) -> None:
        if self.fails != "plugin":
            self.plugins.append(path)


class _Runtime:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self._trt, self._logger, self.engine_host_code_allowed, self.DLA_core = trt, logger, False, -1

    def load_runtime(self, path: str) -> Any:
        self._trt.calls.append(f"load_runtime {path}")
        return None if self._trt.fails == "lean" else self

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        trt = self._trt
        trt.calls.append("deserialize_cuda_engine")
        trt.deserialized.append(plan)
        trt.host_code, trt.dla_core = self.engine_host_code_allowed, self.DLA_core
        self._logger.log(Severity.WARNING, "a warning is no reason")
        if trt.fails == "raises":
            raise RuntimeError("Serialization assertion failed\nat line 4")
        if trt.fails == "none":
            self._logger.log(Severity.ERROR, trt.says)
        if trt.fails in ("none", "silently"):
            return None
        return _Engine(trt, self._logger)


class _Engine:
    device_memory_size_v2 = 5 << 20

    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        outputs = OUTPUTS[:1] if trt.fails == "ends" else OUTPUTS
        self._trt, self._logger, self._specs = trt, logger, {spec.name: spec for spec in (*INPUTS, *outputs)}
        self.num_io_tensors = len(self._specs)

    def get_tensor_name(self, index: int) -> str:
        return list(self._specs)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return TYPES[self._specs[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._specs[name].shape

    def create_runtime_config(self) -> Any:
        return types.SimpleNamespace(cuda_graph_strategy=None)

    def create_execution_context(self, *config: Any) -> Any:
        self._trt.calls.append("create_execution_context")
        if self._trt.fails == "context":
            self._logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 5242880 bytes.)")
            return None
        return types.SimpleNamespace(config=config)


def fake_flavor(trt: FakeTensorRT, name: str = "tensorrt", version: tuple[int, ...] = VERSION) -> Flavor:
    return Flavor(name, trt, version)


def plan_of(seed: int = 0, size: int = 2048) -> bytes:
    """Bytes that begin as a plan does."""
    blocks = (hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(size // 32))
    return b"ftrt" + b"".join(blocks)


def info_of(plan: bytes, **changes: Any) -> EngineInfo:
    """A passport for `plan`, built on `DEVICE`."""
    info = EngineInfo(
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        onnx_sha256="0" * 64,
        onnx_path="model.onnx",
        flavor="tensorrt",
        tensorrt_version=".".join(map(str, VERSION)),
        inputs=INPUTS,
        outputs=OUTPUTS,
        spec=SPEC,
        built_at="2026-01-31T12:00:00+00:00",
        build_seconds=12.5,
        compute_capability=DEVICE.compute_capability,
        device_name=DEVICE.name,
        driver=DEVICE.driver,
        cuda_version=DEVICE.cuda_version,
    )
    return replace(info, **changes)


def put_pair(engine: Path, plan: bytes, **changes: Any) -> EngineInfo:
    """Publish `plan` as `engine`, with its passport."""
    info = info_of(plan, **changes)
    temporary = engine.with_name(f".{engine.name}.part")
    temporary.write_bytes(plan)
    publish(temporary, info, engine)
    return info
