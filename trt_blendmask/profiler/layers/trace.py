"""What ONNX Runtime's profiler writes: one JSON object a line, the nodes of a run before the run itself."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_KERNEL = "_kernel_time"
_TYPES = {  # its names of element types -> ours
    "float": "FP32",
    "float16": "FP16",
    "bfloat16": "BF16",
    "double": "FP64",
    "int8": "INT8",
    "uint8": "UINT8",
}


@dataclass(frozen=True)
class Event:
    """One node in one run: `us` microseconds; types as "FP32", shapes of inputs (weights too) and outputs."""

    name: str
    op: str
    us: float
    input_types: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_types: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    bytes: int


@dataclass
class Run:
    """One call of `InferenceSession.run`: `us` of the whole, and its nodes, each by itself."""

    us: float = 0.0
    events: list[Event] = field(default_factory=list)


def runs_in(trace: Path) -> Iterator[Run]:
    """The runs of a trace file, one after the other. What cannot be read of it is left out, and so part of the gap."""
    nodes: list[dict[str, Any]] = []
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:  # names are written as they are, with quotation marks in them
                event = json.loads(line.strip().rstrip(","))
            except ValueError:
                continue
            if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL):
                nodes.append(event)
            elif event.get("name") == "model_run":
                yield Run(float(event["dur"]), [_event(node) for node in _outermost(nodes)])
                nodes = []


def calm_half(runs: list[Run]) -> list[Run]:
    """The faster half of the runs: others were disturbed by what else the machine did."""
    return sorted(runs, key=lambda run: run.us)[: (len(runs) + 1) // 2]


def mean_times(runs: list[Run]) -> dict[str, tuple[Event, float, float]]:
    """By name of the node an event of it, its mean microseconds in a run and their standard error, in the order of
    the first run.
    """
    times: defaultdict[str, list[float]] = defaultdict(list)
    first: dict[str, Event] = {}
    for run in runs:
        for event in run.events:
            first.setdefault(event.name, event)
            times[event.name].append(event.us)
    return {name: (event, sum(times[name]) / len(runs), standard_error(times[name])) for name, event in first.items()}


def standard_error(values: list[float]) -> float:
    """Of their mean; 0 of fewer than two."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _outermost(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without those inside a Loop or an If, whose own time holds theirs."""
    end = -1
    for node in sorted(nodes, key=lambda node: (node["ts"], -node["dur"])):
        if node["ts"] + node["dur"] > end:
            end = node["ts"] + node["dur"]
            yield node


def _event(node: dict[str, Any]) -> Event:
    args = node.get("args", {})
    input_types, input_shapes = _typed(args.get("input_type_shape"))
    output_types, output_shapes = _typed(args.get("output_type_shape"))
    return Event(
        name=node["name"][: -len(_KERNEL)],
        op=str(args.get("op_name", "")),
        us=float(node["dur"]),
        input_types=input_types,
        input_shapes=input_shapes,
        output_types=output_types,
        output_shapes=output_shapes,
        bytes=sum(int(args.get(key) or 0) for key in ("activation_size", "parameter_size", "output_size")),
    )


def _typed(tensors: object) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    pairs = [pair for one in (tensors if isinstance(tensors, list) else []) for pair in one.items()]
    types = tuple(_TYPES.get(name, name.upper()) for name, _ in pairs)
    return types, tuple(tuple(int(side) for side in shape) for _, shape in pairs)
