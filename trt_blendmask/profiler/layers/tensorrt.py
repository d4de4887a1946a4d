"""TensorRT and TensorRT-RTX on the GPU, layer by layer: IProfiler for the times, the engine inspector for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx

from trt_blendmask.backends import Array
from trt_blendmask.backends.lane import Execution, nbytes_of
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.engines.passport import recorded_onnx
from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.files import file_sha256
from trt_blendmask.profiler.layers import profile_of
from trt_blendmask.profiler.layers.inspector import Timed, layer_infos, layers_of
from trt_blendmask.profiler.layers.trace import standard_error
from trt_blendmask.profiler.report import LayerProfile
from trt_blendmask.surgery.macs import macs_by_node

WARM_UP = 3


def tensorrt_layers(session: TensorRtSession, images: Sequence[Array], runs: int = 50) -> LayerProfile:
    """Run the engine of `session` on `images` in turn, and say which of its layers took how long.

    The layers are timed in an execution context of their own, one after the other, without a CUDA graph; the whole by
    `session.times`, in turn.

    Args:
        images: inputs of the network, one at least.

    Raises:
        SourceUnavailableError: the GPU failed, or has not the memory for a second context.
        DataError: an engine whose inspector tells nothing.
    """
    engine, device, whole = session.engine, session.device, []
    infos = layer_infos(engine.layer_information())
    with device.current(), ExitStack() as things:
        stream, pinned = device.stream(), device.pinned(nbytes_of(engine.inputs[0]))
        things.callback(stream.free)
        things.callback(pinned.free)
        buffers = {}
        for spec in (*engine.inputs, *engine.outputs):
            buffers[spec.name] = device.memory(nbytes_of(spec))
            things.callback(buffers[spec.name].free)
        execution = Execution(engine, False, {name: buffer.pointer for name, buffer in buffers.items()})
        things.callback(execution.free)
        clock = layer_clock(engine.flavor.module)
        execution.profile(clock)
        things.callback(stream.synchronize)  # the last comes first
        for index in range(WARM_UP + runs):
            frame = images[index % len(images)]
            session.input_buffer()[...] = frame
            whole.append(session.times().compute)
            pinned.array[...] = np.ascontiguousarray(frame).reshape(-1).view(np.uint8)
            stream.upload(buffers[engine.inputs[0].name].pointer, pinned.array)
            clock.begin()
            execution.enqueue(stream)
            stream.synchronize()
    return profile_of(
        "TensorRT",
        runs,
        float(np.mean(whole[WARM_UP:])),
        layers_of(infos, mean_times(clock.runs[WARM_UP:]), _macs(session)),
        float(np.mean([sum(ms for _, ms in run) for run in clock.runs[WARM_UP:]])),
        "layers one after the other, without a CUDA graph, with an event around each; the whole without",
    )


def layer_clock(trt: Any) -> Any:
    """An `IProfiler` of the module `tensorrt` or `tensorrt_rtx` with `runs`: of each run names and milliseconds."""

    class LayerClock(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.runs: list[list[tuple[str, float]]] = []

        def begin(self) -> None:
            """The next run begins."""
            self.runs.append([])

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            if self.runs:
                self.runs[-1].append((str(layer_name), float(ms)))

    return LayerClock()


def mean_times(runs: Sequence[Sequence[tuple[str, float]]]) -> list[Timed]:
    """Of each layer in the order of the first run; the second of a name in a run is a layer of its own."""
    times: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        seen: dict[str, int] = {}
        for name, ms in run:
            seen[name] = seen.get(name, 0) + 1
            times.setdefault((name, seen[name]), []).append(ms)
    return [(name, sum(values) / len(runs), standard_error(values)) for (name, _), values in times.items()]


def _macs(session: TensorRtSession) -> Mapping[str, int] | None:
    """Multiply-adds by node of the ONNX that the engine was built from, if that still lies there unchanged."""
    info = session.engine.info
    if info is None:
        return None
    source = recorded_onnx(info, session.engine.path)
    try:
        if file_sha256(source) != info.onnx_sha256:
            return None
        return {node.name: macs for node, _, macs in macs_by_node(onnx.load(str(source)))}
    except (TrtBlendMaskError, OSError, ValueError):
        return None
