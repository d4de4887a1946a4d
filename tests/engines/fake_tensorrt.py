"""A test double of the builder half of TensorRT, for our error handling and nothing else: it builds no network.

It is imported as `tensorrt` by the process that builds, and fails there as the real one does: no builder without a
driver, False from the parser, None from the builder with the reason in the logger or nowhere, an abort, a crash.

FAKE_TENSORRT says how ("" works), FAKE_TENSORRT_VERSION which version it is, FAKE_TENSORRT_CALLS names a file that gets
a line for each call.
"""

from __future__ import annotations

import enum
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import onnx

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.13.3.9")
HOW = os.environ.get("FAKE_TENSORRT", "")
SLOW_STEPS, STEP_SECONDS = 200, 0.05
_PLAN = b"ftrt" + bytes(range(256)) * 40


def _called(what: str, *with_: Any) -> None:
    if file := os.environ.get("FAKE_TENSORRT_CALLS"):
        with Path(file).open("a") as stream:
            print(what, *with_, file=stream)


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def __init__(self) -> None:
        pass


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


BuilderFlag = enum.Enum("BuilderFlag", ["TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "UINT8", "INT32", "INT64", "BOOL"])
_TYPES = {1: DataType.FLOAT, 2: DataType.UINT8, 6: DataType.INT32, 7: DataType.INT64, 10: DataType.HALF}


class HostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Tensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        kind = value.type.tensor_type
        self.name, self.dtype = value.name, _TYPES[kind.elem_type]
        self.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)


class Network:
    def __init__(self, flags: int) -> None:
        typed = bool(flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert typed == __version__.startswith("10."), "asked for on 10, the only way on 11"
        self.graph = onnx.GraphProto()

    num_inputs = property(lambda self: len(self.graph.input))
    num_outputs = property(lambda self: len(self.graph.output))
    num_layers = property(lambda self: len(self.graph.node))

    def get_input(self, index: int) -> Tensor:
        return Tensor(self.graph.input[index])

    def get_output(self, index: int) -> Tensor:
        return Tensor(self.graph.output[index])


class ParserError:
    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node

    def desc(self) -> str:
        return "importer.cpp: no importer registered for the op"

    def node_name(self) -> str:
        if HOW == "parse-bytes":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "not a name")
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.logger, self.errors = network, logger, list[ParserError]()
        self.num_errors = 0

    def parse(self, content: bytes) -> bool:
        _called("parse")
        if HOW == "abort":
            print("terminate called after throwing an instance of 'std::out_of_range'", file=sys.stderr, flush=True)
            os.abort()
        if HOW == "chatter":
            os.write(1, b'{"built": "by a library that prints"}\n')
        model = onnx.load_model_from_string(content)
        if HOW == "parse-silent":
            return False
        if HOW.startswith("parse"):
            wanted = os.environ["FAKE_TENSORRT_OP"]
            self.errors = [ParserError(node) for node in model.graph.node if node.op_type == wanted]
            self.num_errors = len(self.errors)
            return False
        self.network.graph.CopyFrom(model.graph)
        return True

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.measured = {line for line in content.decode().split(",") if line}

    def combine(self, other: TimingCache, _ignore_mismatch: bool) -> bool:
        _called("combine")
        self.measured |= other.measured
        return True

    def serialize(self) -> HostMemory:
        return HostMemory(",".join(sorted(self.measured)).encode())


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes[name] = (least, usual, most)


class BuilderConfig:
    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.progress_monitor: Any = None
        self.cache: TimingCache | None = None
        self.flags = {BuilderFlag.TF32}

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (int, list, enum.Enum)):
            _called(name, value)
        super().__setattr__(name, value)

    def set_flag(self, flag: BuilderFlag) -> None:
        _called("set_flag", flag.name)
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        _called("set_memory_pool_limit", pool.name, size)

    def add_optimization_profile(self, profile: Profile) -> int:
        _called("add_optimization_profile", profile.shapes)
        return 0

    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        _called("create_timing_cache", len(content))
        if HOW == "cache-noise" and content:
            self.logger.log(ILogger.ERROR, "Error Code 1: Cuda Runtime (cudaError 35: driver version is insufficient)")
        return None if HOW == "cache-refused" and content else TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, _ignore_mismatch: bool) -> bool:
        if HOW == "cache-mismatch" and cache.measured:
            return False
        self.cache = cache
        return True


class Builder:
    num_DLA_cores = int(os.environ.get("FAKE_TENSORRT_DLA", "0"))  # noqa: N815, the real name

    def __init__(self, logger: ILogger) -> None:
        _called("Builder")
        self.logger: Any = logger
        if HOW == "no-driver":
            self.logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35. Please check your CUDA")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        if HOW == "no-builder":
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> Network:
        return Network(flags)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self.logger)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> HostMemory | None:
        _called("build_serialized_network")
        assert network.num_outputs
        assert BuilderFlag.TF32 not in config.flags
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        if config.cache is not None:
            config.cache.measured.add(f"kernel{os.getpid()}")
        if HOW == "slow":
            monitor.phase_start("Timing tactics", "Building engine", SLOW_STEPS)
            for step in range(SLOW_STEPS):
                time.sleep(STEP_SECONDS)
                if not monitor.step_complete("Timing tactics", step):
                    self.logger.log(ILogger.ERROR, "Error Code 7: BuildCanceled (Build canceled by user)")
                    return None
        if HOW == "deaf":
            time.sleep(SLOW_STEPS * STEP_SECONDS)
        if HOW in ("crash", "killed"):
            time.sleep(0.6)  # so that the phase is told
            os.kill(os.getpid(), signal.SIGSEGV if HOW == "crash" else signal.SIGKILL)
        if HOW == "warns":
            self.logger.log(ILogger.WARNING, "weights have subnormal FP16 values")
        monitor.step_complete("Building engine", 0)
        monitor.phase_finish("Building engine")
        said = os.environ.get("FAKE_TENSORRT_SAYS", "")
        if said:
            self.logger.log(ILogger.ERROR, said)
        return None if said or HOW in ("none", "cache-noise") else HostMemory(_PLAN)


class PluginRegistry:
    def __init__(self) -> None:
        self.loaded: list[str] = []

    def get_creator(self, name: str, _version: str, _namespace: str) -> str | None:
        return name if self.loaded else None

    def load_library(self, path: str) -> str | None:
        if HOW == "bad-plugin":
            return None
        _called("load_library", path)
        self.loaded.append(path)
        return path


_registry = PluginRegistry()


def get_plugin_registry() -> PluginRegistry:
    return _registry
