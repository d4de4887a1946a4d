"""Writing float16 into a graph: each constant once per type, each cast once per tensor and direction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.quantize.types import FloatGraph

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_SUFFIX = {HALF: ".half", FLOAT: ".float"}


@dataclass(frozen=True)
class Casts:
    """Nodes that were added, by direction."""

    to_half: int
    to_float: int


def place_half(graph: FloatGraph, half: Set[int]) -> Casts:
    """Rewrite the graph, in place, so that the nodes `half` work in float16 and all others as they did."""
    return _Writer(graph, half).write()


class _Writer:
    def __init__(self, graph: FloatGraph, half: Set[int]) -> None:
        self._graph, self._half = graph, half
        self._nodes: list[onnx.NodeProto] = []
        self._casts = {HALF: 0, FLOAT: 0}
        self._declared = {value.name: value.type.tensor_type.elem_type for value in graph.graph.output}
        self._names: dict[tuple[str, int], str] = {}  # of what was made so far, by name in the float graph and type
        self._native: dict[str, int] = {}  # what its maker makes of it; FLOAT for inputs of the graph
        self._kinds: defaultdict[str, set[int]] = defaultdict(set)  # in which each constant is read
        for i, node in enumerate(graph.graph.node):
            for k, name in enumerate(node.input):
                if name in graph.constants:
                    self._kinds[name].add(self._kind(i, k))

    def write(self) -> Casts:
        for i, node in enumerate(self._graph.graph.node):
            self._add(i, onnx.NodeProto.FromString(node.SerializeToString()))
        graph = self._graph.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        self._retype_constants()
        return Casts(self._casts[HALF], self._casts[FLOAT])

    def _kind(self, i: int, k: int) -> int:
        """The type in which node `i` reads its float input `k`."""
        return HALF if i in self._half and k in self._graph.ends[i].inputs else FLOAT

    def _add(self, i: int, node: onnx.NodeProto) -> None:
        for k, name in enumerate(node.input):
            if name in self._graph.floats:
                kind = self._native.get(name, FLOAT) if node.op_type == "Cast" else self._kind(i, k)
                node.input[k] = self._read(name, kind)
        self._nodes.append(node)
        for k, name in enumerate(node.output):
            if name in self._graph.floats:
                kind = HALF if i in self._half and k in self._graph.ends[i].outputs else FLOAT
                declared = self._declared.get(name, kind)
                self._native[name] = kind
                self._names[name, kind] = node.output[k] = name if declared == kind else f"{name}{_SUFFIX[kind]}"
                if declared != kind:
                    self._cast(node.output[k], name, declared)
                    self._names[name, declared] = name

    def _read(self, name: str, kind: int) -> str:
        if name in self._graph.constants:
            return name if kind == FLOAT or self._kinds[name] == {HALF} else f"{name}{_SUFFIX[HALF]}"
        native = self._native.get(name, FLOAT)
        source = self._names.setdefault((name, native), name)
        if (name, kind) not in self._names:
            self._names[name, kind] = f"{name}{_SUFFIX[kind]}"
            self._cast(source, self._names[name, kind], kind)
        return self._names[name, kind]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], f"{target}.cast", to=kind))
        self._casts[kind] += 1

    def _retype_constants(self) -> None:
        tensors = self._graph.graph.initializer
        for tensor in list(tensors):
            if tensor.data_type == FLOAT and HALF in self._kinds[tensor.name]:
                values = numpy_helper.to_array(tensor).astype(np.float16)
                made = numpy_helper.from_array(values, self._read(tensor.name, HALF))
                (tensor if made.name == tensor.name else tensors.add()).CopyFrom(made)
