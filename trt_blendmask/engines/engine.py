"""Engines, opened: one of the two files that know how versions of TensorRT differ; the other is `build`.

An engine is executable code. All that can be known without TensorRT is checked before it sees a byte (`checks`), and
what it gets are the bytes whose hash was taken.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trt_blendmask.engines.checks import (
    Plan,
    check_device,
    check_plugin,
    no_device,
    read_plan,
    rebuild_hint,
)
from trt_blendmask.engines.device import find_device
from trt_blendmask.engines.flavor import Flavor, find, title_of
from trt_blendmask.engines.plugin import Plugin, load_plugin
from trt_blendmask.errors import DataError, SourceUnavailableError, TrtBlendMaskError, UsageError, first_line
from trt_blendmask.structures import EngineInfo, TensorSpec

# TensorRT's names of types -> NumPy's
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

_FLAVOR_OF = {b"vtrt": "rtx"}  # by the first bytes of a plan
_MOST_ERRORS = 16  # kept of what the library complains about: an engine that fails fails at every frame


class OpenedEngine:
    """An engine in the memory of the GPU; `close` frees it, after all contexts that were made of it.

    Attributes:
        path: of its file. plan_sha256: of its bytes.
        info: its passport; None where the user vouched for an engine without one.
        flavor: whose runtime holds it. inputs, outputs: in the engine's order.
    """

    def __init__(self, plan: Plan, flavor: Flavor, plugin: Plugin | None) -> None:
        trt = flavor.module
        self.path, self.plan_sha256, self.info, self.flavor = plan.path, plan.sha256, plan.info, flavor
        self._log = _log(trt)
        self._runtime, self._engine = self._deserialize(plan, plugin)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.inputs = tuple(self._spec(name) for name in inputs)
        self.outputs = tuple(self._spec(name) for name in names if name not in inputs)
        if plan.info is not None:
            self._check_ends(plan.info)

    def context(self, own_graphs: bool = False) -> Any:
        """A new `IExecutionContext`; for one thread at a time.

        Args:
            own_graphs: TensorRT-RTX captures CUDA graphs of its own and replays them at each enqueue.

        Raises:
            UsageError: `own_graphs` with another flavor.
            SourceUnavailableError: the GPU has not the memory.
        """
        if self._engine is None:
            raise DataError(f"The engine '{self.path}' was closed: open it again.")
        self._log.errors.clear()
        try:
            context = self._engine.create_execution_context(*self._strategy(own_graphs))
        except (RuntimeError, MemoryError, ValueError) as error:
            context = None
            self._log.errors.append(first_line(error))
        if context is None:
            needed = (self.device_bytes() + (1 << 20) - 1) >> 20
            raise SourceUnavailableError(
                f"Expected {needed} MiB of free GPU memory for the activations of '{self.path}', but TensorRT could "
                f"not get them{self.reason()}. End what else uses the GPU (nvidia-smi, on a Jetson tegrastats "
                "shows it), or build a smaller engine: trt-blendmask export --input-size HxW"
            )
        return context

    def device_bytes(self) -> int:
        """Bytes of GPU memory that a context needs for activations."""
        engine = self._engine  # TensorRT 11 and RTX have only the second name
        return int(getattr(engine, "device_memory_size_v2", 0) or getattr(engine, "device_memory_size", 0))

    def layer_information(self) -> str:
        """JSON of its layers, as its inspector tells them: their names, or all of them where it was built in detail."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.flavor.module.LayerInformationFormat.JSON))

    def reason(self) -> str:
        """What TensorRT complained of since this was last asked, as ": words" to put behind a sentence, or ""."""
        words = str(self._log.reason())
        self._log.errors.clear()
        return words

    def close(self) -> None:
        """Free the engine; closing twice is harmless."""
        self._engine = None
        self._runtime = None

    def __enter__(self) -> OpenedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _deserialize(self, plan: Plan, plugin: Plugin | None) -> tuple[Any, Any]:
        trt, engine = self.flavor.module, None
        try:
            runtime = trt.Runtime(self._log)
            if plugin is not None:
                load_plugin(trt, plugin)
            runtime = self._prepare(runtime, plan.info)
            engine = runtime.deserialize_cuda_engine(plan.content)
        except TrtBlendMaskError:
            raise
        except Exception as error:  # TensorRT's bindings raise several kinds, and None on other days
            self._log.errors.append(first_line(error))
        if engine is None:
            from trt_blendmask.engines.complaints import is_of_the_machine

            if is_of_the_machine("\n".join(self._log.errors)):
                raise SourceUnavailableError(
                    f"Expected a GPU and a driver that {self.flavor.title} can open '{self.path}' with, but it cannot"
                    f"{self.reason()}. Type: trt-blendmask doctor"
                )
            raise DataError(
                f"Expected an engine that {self.flavor.title} can read, but '{self.path}' cannot be deserialised"
                f"{self.reason()}. {rebuild_hint(self.path, self.info)}"
            )
        return runtime, engine

    def _prepare(self, runtime: Any, info: EngineInfo | None) -> Any:
        """The runtime that reads the plan, which may be in the plan.

        A version-compatible plan holds the lean runtime of its version, an embedded plugin is a library: both are host
        code, which TensorRT refuses unless told. The passport says that `build` put it there.
        """
        options = info.options if info else {}
        if "dla" in options:
            runtime.DLA_core = options["dla"]
        lean, excluded = options.get("version_compatible"), options.get("exclude_lean")
        if options.get("embed_plugin") or (lean and not excluded):
            runtime.engine_host_code_allowed = True
        if not info or not excluded:
            return runtime
        library = f"libnvinfer_lean.so.{info.tensorrt_version.split('.')[0]}"
        loaded = runtime.load_runtime(library)
        if loaded is None:
            raise SourceUnavailableError(
                f"Expected '{library}' of TensorRT {info.tensorrt_version}, which '{self.path}' was built without, "
                f"but it cannot be loaded{self.reason()}. Install it, or build without --exclude-lean."
            )
        return loaded

    def _strategy(self, own_graphs: bool) -> tuple[Any, ...]:
        if not own_graphs:
            return ()
        if self.flavor.name != "rtx":
            raise UsageError("Only TensorRT-RTX captures CUDA graphs by itself: capture the graph of this engine.")
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self.flavor.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return (config,)

    def _spec(self, name: str) -> TensorSpec:
        kind = self._engine.get_tensor_dtype(name).name
        return TensorSpec(name, DTYPES.get(kind, kind.lower()), tuple(map(int, self._engine.get_tensor_shape(name))))

    def _check_ends(self, info: EngineInfo) -> None:
        if set(info.inputs) != set(self.inputs) or set(info.outputs) != set(self.outputs):
            raise DataError(
                f"Expected the inputs and outputs that its passport names in '{self.path}', but the engine has "
                f"others. {rebuild_hint(self.path, info)}"
            )


def open_engine(
    path: str | os.PathLike[str], *, trust: str | None = None, flavor: Flavor | None = None, rebuild: bool = False
) -> OpenedEngine:
    """Open an engine, if it is the one of its passport and that fits this machine.

    Args:
        trust: sha256 of an engine that the user vouches for; it needs no passport.
        flavor: default: the one that the passport names, or without a passport the first bytes of the plan.
        rebuild: build it again from the ONNX file that it was built from if it is damaged or does not fit.

    Raises:
        InputMissingError: no such file.
        DataError: damaged, or built for another version, GPU or plugin.
        NotTrustedError: no passport, or others than this user could have written the engine.
        SourceUnavailableError: no GPU, or its memory is full.
    """
    try:
        return _open(path, trust or "", flavor)
    except DataError:
        if not rebuild or find_device() is None:  # without a GPU it would not open either
            raise
        from trt_blendmask.engines.rebuild import rebuild_engine

        rebuild_engine(Path(path))
        return _open(path, "", flavor)  # `trust` was of the one before


def _open(path: str | os.PathLike[str], trust: str, flavor: Flavor | None) -> OpenedEngine:
    plan = read_plan(path, trust)
    info = plan.info
    if flavor is None:
        flavor = _find(plan)
    plugin = None
    if info is not None:
        _check_flavor(info, flavor, plan.path)
        plugin = check_plugin(info, plan.path)
    device = find_device()
    if device is None:
        raise no_device(plan.path, info)
    if info is not None:
        check_device(info, device, plan.path)
    return OpenedEngine(plan, flavor, plugin)


def _check_flavor(info: EngineInfo, flavor: Flavor, path: Path) -> None:
    """Refuse an engine of the other flavor, or of a version that the installed one cannot read.

    TensorRT-RTX reads engines of its own version only, TensorRT too, but for those that were built version-compatible:
    these are also read by a later one of the same major version, those of 10 by 11 (NVIDIA's support matrix).

    Raises:
        DataError: it cannot.
    """
    built, version = tuple(map(int, info.tensorrt_version.split("."))), flavor.version
    later = version > built and (built[0] == version[0] or (built[0], version[0]) == (10, 11))
    compatible = flavor.name == "tensorrt" and info.options.get("version_compatible") and later
    if info.flavor == flavor.name and (built == version or compatible):
        return
    came = title_of(info.flavor, info.tensorrt_version)
    raise DataError(
        f"Expected an engine of {flavor.title}, which is installed, but '{path}' was built with {came}. "
        f"{rebuild_hint(path, info)}"
    )


def _find(plan: Plan) -> Flavor:
    try:
        return find(plan.info.flavor if plan.info else _FLAVOR_OF.get(plan.content[:4], "tensorrt"))
    except TrtBlendMaskError:
        if find_device() is None:  # to install TensorRT would not help
            raise no_device(plan.path, plan.info) from None
        raise


def _log(trt: Any) -> Any:
    """A logger that keeps what goes wrong, for our sentence, and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            grave = severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            if grave and len(self.errors) < _MOST_ERRORS:
                self.errors.append(message)

        def reason(self) -> str:
            first = self.errors[0].splitlines()[0].strip().rstrip(".")[:200] if self.errors else ""
            return f": {first}" if first else ""

    return Log()
