"""ONNX Runtime on the CPU, layer by layer, by its own profiler.

Recording a node costs microseconds, half of them counted as the node's own; a graph has thousands of nodes that take
less. What it costs here is the difference to a session without the profiler, which runs in turn with the profiled one;
how much of that is counted as the nodes' own is measured on a chain of nodes that do little, and taken off each.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from trt_blendmask.backends import Array
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession, harmful, session_options
from trt_blendmask.errors import DataError, OutputError, first_line
from trt_blendmask.profiler.layers import profile_of
from trt_blendmask.profiler.layers.origin import Origin
from trt_blendmask.profiler.layers.trace import Event, Run, calm_half, mean_times, runs_in, standard_error
from trt_blendmask.profiler.report import Layer, LayerProfile

WARM_UP = 2
_MOST_EVENTS = 60_000  # of a trace, some 60 MB
_REFORMATS = ("ReorderInput", "ReorderOutput", "Cast", "Identity", "QuantizeLinear", "DequantizeLinear")
_CHAIN, _CHAIN_RUNS = 1000, 10  # so long that what a run itself costs does not count
_AT_ODDS = 2.0  # so many times more or less than on the chain a node of a real graph may cost
_WRITE = ("onnxruntime", "google")  # packages whose exceptions here mean that there is no room
_CPU = ["CPUExecutionProvider"]


def onnxruntime_layers(path: Path, images: Sequence[Array], runs: int = 20, threads: int = 0) -> LayerProfile:
    """Run the ONNX `path` on `images` in turn, and say which of its nodes took how long.

    Args:
        images: inputs of the network, one at least. runs: at most, less of graphs with thousands of nodes.
        threads: for one operator, 0 for as many as this process may use.

    Raises:
        as `OnnxRuntimeSession`.
        DataError: a file whose shapes contradict one another, or a profile that ONNX Runtime did not write.
        OutputError: no room for temporary files.
    """
    plain = OnnxRuntimeSession(path, threads)
    model = onnx.load(str(plain.path))
    name = plain.inputs[0].name
    with _folder() as folder:
        optimised = Path(folder) / "optimised.onnx"
        profiled = _Profiled(str(plain.path), Path(folder), threads, harmful(model), optimised)
        rounds = max(3, min(runs, _MOST_EVENTS // max(1, len(onnx.load(str(optimised)).graph.node)) - WARM_UP))
        whole = []
        for index in range(WARM_UP + rounds):
            frame = images[index % len(images)]
            whole.append(_us(plain.run, frame))
            profiled.run({name: frame})
        taken = profiled.runs()[WARM_UP:]
        origin = Origin(model, onnx.load(str(optimised)).graph)
    plain.close()
    if not taken:
        raise DataError(f"Expected ONNX Runtime to profile '{path}', but it wrote no runs: update onnxruntime.")
    calm = calm_half(taken)
    plain_us, recorded_us = sorted(whole[WARM_UP:])[: len(calm)], [run.us for run in calm]
    whole_us, profiled_us = float(np.mean(plain_us)), float(np.mean(recorded_us))
    cost, nodes = recording_cost(threads), max(1, len(calm[0].events))
    seen_us = (profiled_us - whole_us) / nodes  # of one node; where the machine did something else, too, not believed
    cost_us = cost.counted * float(np.clip(seen_us, cost.us / _AT_ODDS, cost.us * _AT_ODDS))
    profile = profile_of(
        "ONNX Runtime",
        len(taken),
        whole_us / 1e3,
        _layers(origin, mean_times(calm), cost_us),
        profiled_us / 1e3,
        f"means of the calmer half of {len(taken)} runs, less what recording the node costs here",
    )
    error_us = cost.counted / nodes * math.hypot(standard_error(plain_us), standard_error(recorded_us))
    return replace(profile, shared_error_ms=error_us / 1e3)


@dataclass(frozen=True)
class RecordingCost:
    """What ONNX Runtime's profiler costs.

    Attributes:
        us: microseconds for a node. counted: the share of them that it counts as the node's own.
    """

    us: float
    counted: float


@cache
def recording_cost(threads: int = 0) -> RecordingCost:
    """Measured once here, on a chain of nodes that do nothing."""
    import onnxruntime

    names = [f"x{i}" for i in range(_CHAIN + 1)]
    nodes = [onnx.helper.make_node("Exp", [a], [b], name=b) for a, b in pairwise(names)]
    ends = [onnx.helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, [1]) for one in (names[0], names[-1])]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    chain = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    plain = onnxruntime.InferenceSession(chain, session_options(threads), providers=_CPU)
    feeds, whole = {names[0]: np.zeros(1, np.float32)}, []
    with _folder() as folder:
        profiled = _Profiled(chain, Path(folder), threads, [])
        for _ in range(_CHAIN_RUNS):
            whole.append(_us(plain.run, None, feeds))
            profiled.run(feeds)
        runs = profiled.runs()
    extra = [run.us - min(whole) for run in runs]
    counted = [(sum(event.us for event in run.events) - min(whole)) / us for run, us in zip(runs, extra, strict=True)]
    return RecordingCost(float(np.median(extra)) / _CHAIN, float(np.clip(np.median(counted), 0.0, 1.0)))


@contextmanager
def _folder() -> Iterator[str]:
    """For what ONNX Runtime writes: the optimised graph and a trace.

    Raises:
        OutputError: to write it or to read it back fails.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="trt-blendmask-") as folder:
            yield folder
    except Exception as error:  # those of ONNX Runtime, of protobuf and of the system share no base class
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _WRITE:
            raise
        raise OutputError(
            f"Expected room for ONNX Runtime's profile in {tempfile.gettempdir()}, but got: {first_line(error)}. "
            "Make room there, or name another folder: export TMPDIR=/folder"
        ) from error


class _Profiled:
    """A session with the profiler on."""

    def __init__(
        self, network: str | bytes, folder: Path, threads: int, leave_out: list[str], save: Path | None = None
    ):
        import onnxruntime

        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "trace")
        if save is not None:
            options.optimized_model_filepath = str(save)
        self._session = onnxruntime.InferenceSession(network, options, providers=_CPU, disabled_optimizers=leave_out)

    def run(self, feeds: dict[str, Any]) -> None:
        self._session.run(None, feeds)

    def runs(self) -> list[Run]:
        """All that were made; the last thing to ask for."""
        return list(runs_in(Path(self._session.end_profiling())))


def _us(work: Callable[..., object], *given: object) -> float:
    began = time.perf_counter()
    work(*given)
    return 1e6 * (time.perf_counter() - began)


def _layers(origin: Origin, times: dict[str, tuple[Event, float, float]], cost_us: float) -> list[Layer]:
    work = origin.work(list(times))
    return [
        Layer(
            name=name,
            part=origin.part(name),
            op=event.op,
            precision=_precision(event, name in work),
            shape=event.output_shapes[0] if event.output_shapes else (),
            macs=work.get(name, 0),
            bytes=event.bytes,
            ms=max(0.0, us - cost_us) / 1e3,
            share=0.0,
            is_reformat=event.op in _REFORMATS or (event.op == "Transpose" and origin.is_new(name)),
            error_ms=error / 1e3,
        )
        for name, (event, us, error) in times.items()
    ]


def _precision(event: Event, is_product: bool) -> str:
    """The type that a product multiplies, or that another node gives."""
    types = event.input_types if is_product else event.output_types
    first = types[0] if types else ""
    return "INT8" if is_product and first == "UINT8" else first
