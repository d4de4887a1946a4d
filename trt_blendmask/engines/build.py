"""ONNX bytes to a plan, given a flavor. One of the two files that know how versions of TensorRT differ.

It runs in a process of its own (`engines.child`): TensorRT's parser can end the process it runs in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trt_blendmask.engines.engine import DTYPES
from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.plugin import Plugin, load_plugin
from trt_blendmask.engines.progress import BuildState
from trt_blendmask.engines.timing_cache import TimingCache
from trt_blendmask.errors import DataError, SourceUnavailableError, UsageError
from trt_blendmask.structures import TensorSpec

READING = "Reading the ONNX"
_LOG_LINES = 200
_HARDWARE = {"ampere+": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True)
class Job:
    """How to build; `tail` is "native", "plugin" (with its library) or "aot"."""

    options: BuildOptions
    tail: str
    plugin: Plugin | None
    timings: TimingCache | None


@dataclass(frozen=True)
class Built:
    """A plan, and what the network's ends are."""

    plan: Any  # TensorRT's host memory: a buffer
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: int


@dataclass(frozen=True)
class ParserComplaint:
    """One error of the parser: the node it is about ("" where none) and what it says."""

    node: str
    op: str
    text: str


class BuildRefusedError(Exception):
    """TensorRT gave no plan.

    Attributes:
        stage: "start" (no builder), "parse" or "build". complaints: of the parser. log: the last errors of the log.
        stopped: because it was told to.
    """

    def __init__(self, stage: str, complaints: list[ParserComplaint], log: list[str], stopped: bool = False) -> None:
        super().__init__(stage)
        self.stage, self.complaints, self.log, self.stopped = stage, complaints, log, stopped


def build_plan(flavor: Flavor, onnx: bytes, job: Job, state: BuildState) -> Built:
    """Parse and build.

    Args:
        onnx: the model; weights inside. state: is kept up to date, and asked whether to stop.

    Raises:
        BuildRefusedError: TensorRT does not build it.
        DataError, SourceUnavailableError: a plugin that does not load, or hardware that is not there.
    """
    trt = flavor.module
    log: deque[str] = deque(maxlen=_LOG_LINES)
    logger = _logger(trt, log, state.say)
    _load_tail(flavor, job)
    try:
        builder = trt.Builder(logger)
        network = builder.create_network(_network_flags(flavor))
        parser = trt.OnnxParser(network, logger)
    except (TypeError, RuntimeError) as error:  # pybind's words for a null pointer
        raise BuildRefusedError("start", [], [*log, str(error)]) from error
    state.enter(READING)
    if not parser.parse(onnx):
        raise BuildRefusedError("parse", [_complaint(parser.get_error(i)) for i in range(parser.num_errors)], list(log))
    state.leave(READING)
    config = _configured(flavor, builder, network, job)
    monitor = _monitor(trt, state)
    config.progress_monitor = monitor
    timings = None if job.timings is None else job.timings.attach(config)
    log.clear()  # what it said of timings from elsewhere has been told, and is no reason for what comes
    plan = builder.build_serialized_network(network, config)
    if job.timings is not None and timings is not None:  # of a build that was stopped, too
        job.timings.save(config, timings)
    if plan is None or not plan.nbytes:
        raise BuildRefusedError("build", [], list(log), state.stop.is_set())
    inputs = tuple(_spec(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(network.get_output(i)) for i in range(network.num_outputs))
    return Built(plan, inputs, outputs, network.num_layers)


def _network_flags(flavor: Flavor) -> int:
    """Types are those of the ONNX: asked for on TensorRT 10, the only way since 11."""
    if flavor.name == "tensorrt" and flavor.version >= (11,):
        return 0
    return 1 << int(flavor.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _load_tail(flavor: Flavor, job: Job) -> None:
    if job.tail == "plugin" and job.plugin is not None:
        load_plugin(flavor.module, job.plugin)
    elif job.tail == "aot":
        from trt_blendmask import aot

        aot.register()


def _configured(flavor: Flavor, builder: Any, network: Any, job: Job) -> Any:
    trt, options = flavor.module, job.options
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is float32: who wants speed takes FP16, and knows it
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # of TensorRT-RTX: nothing is allocated in an enqueue, so
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # that it can be captured, or the build says why not
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that 'inspect' and 'profile' see the layers
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.exclude_lean:
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if options.hardware_compatible:
        name = _HARDWARE[options.hardware_compatible]
        if not hasattr(trt.HardwareCompatibilityLevel, name):
            raise SourceUnavailableError(
                f"{flavor.title} does not know --hardware-compatible {options.hardware_compatible}: "
                "type --hardware-compatible ampere+, or update TensorRT."
            )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, name)
    if options.embed_plugin and job.plugin is not None:
        config.plugins_to_serialize = [str(job.plugin.path)]
    if options.dla is not None:
        _use_dla(flavor, builder, config, options.dla)
    if options.compute_capability:
        _aim(flavor, config, options.compute_capability)
    _add_profile(builder, network, config, options.profile)
    return config


def _use_dla(flavor: Flavor, builder: Any, config: Any, core: int) -> None:
    trt, cores = flavor.module, getattr(builder, "num_DLA_cores", 0)  # TensorRT 11 has no DLA
    if core >= cores:
        has = f"has {cores}" if cores else "has none"
        raise SourceUnavailableError(f"Expected the DLA core {core}, but this machine {has}: leave --dla out.")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # most of the selection and the tail cannot run there


def _aim(flavor: Flavor, config: Any, capabilities: tuple[str, ...]) -> None:
    known = flavor.module.ComputeCapability
    config.num_compute_capabilities = len(capabilities)
    for index, text in enumerate(capabilities):
        value = getattr(known, "CURRENT" if text == "current" else f"SM{text.replace('.', '')}", None)
        if value is None or not config.set_compute_capability(value, index):
            names = [name for name in dir(known) if name.startswith("SM")]
            listed = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in sorted(names, key=lambda n: int(n[2:])))
            raise UsageError(
                f"{flavor.title} does not build for compute capability {text}: it knows {listed}. Name one of them, or "
                "leave --compute-capability out."
            )


def _add_profile(builder: Any, network: Any, config: Any, batches: tuple[int, int, int] | None) -> None:
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    free = [end for end in ends if -1 in tuple(end.shape)]
    if any(-1 in tuple(end.shape)[1:] for end in free):
        raise DataError(
            "Expected fixed sizes of the picture, but the model leaves them open. Export it with one: "
            "trt-blendmask export CHECKPOINT --config YAML --input-size HxW -o raw.onnx"
        )
    if free and batches is None:
        raise DataError("Expected a fixed batch, but the model leaves it open: add --profile MIN,OPT,MAX, as 1,1,4.")
    if batches is None:
        return
    if not free:
        raise UsageError("Expected an open batch for --profile, but the model's is fixed: leave --profile out.")
    profile = builder.create_optimization_profile()
    for end in free:
        rest = tuple(end.shape)[1:]
        profile.set_shape(end.name, *((batch, *rest) for batch in batches))
    config.add_optimization_profile(profile)


def _complaint(error: Any) -> ParserComplaint:
    def said(name: str) -> str:
        try:
            return str(getattr(error, name)())
        except Exception:  # names that are no UTF-8, and what a version does not have
            return ""

    return ParserComplaint(said("node_name"), said("node_operator"), said("desc"))


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, DTYPES.get(tensor.dtype.name, tensor.dtype.name), tuple(map(int, tensor.shape)))


def _logger(trt: Any, log: deque[str], say: Callable[[str], None]) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors, because TensorRT tells its reasons here and nowhere else; passes them and warnings on."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.append(text)
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR, trt.ILogger.WARNING):
                say(text)

    return Log()


def _monitor(trt: Any, state: BuildState) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, _parent_phase: str, num_steps: int) -> None:
            state.enter(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            state.step(phase_name, step + 1)
            return not state.stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            state.leave(phase_name)

    return Monitor()
