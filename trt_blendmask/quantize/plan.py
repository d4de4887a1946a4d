"""Which tensors of a deployable graph become INT8, read from the graph's form; nothing is changed here.

TensorRT makes a convolution INT8 where its input and its weights come from DequantizeLinear, and folds what follows
(bias, residual sum, ReLU, the next QuantizeLinear) into it. So the quantised tensors are:

- the inputs of convolutions, but not of the first of a path, which reads the image, nor of the last, which predicts
  logits, boxes, centerness, bases or attention, nor of those that predict where a deformable convolution samples;
- at a residual sum the shortcut, never what the convolution hands to the sum;
- what Concat, MaxPool or Resize make a quantised tensor from: they then work on INT8, all with one scale.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

import onnx

from trt_blendmask.surgery.macs import part_of

_JOINS = {"Concat", "MaxPool", "Resize"}  # codes pass through them (Resize: or are averaged) if all have one scale
_SAMPLED = {"GridSample": (1,), "DeformConv": (2, 4)}  # inputs that say where, and how much, to sample
_FOLDED = {"Mul", "Add", "BatchNormalization"}  # by constants: `fold` makes them part of the convolution before
_CONVOLUTIONS = {"Conv", "DeformConv"}
_UNNAMED_PART = "backbone"


@dataclass(frozen=True)
class Layer:
    """A convolution that becomes INT8: names of its node, of what it reads and of its weights; its part of the network
    (`trt_blendmask.surgery.macs.PARTS`)."""

    name: str
    activation: str
    weight: str
    part: str


@dataclass(frozen=True)
class Plan:
    """What to quantise.

    Attributes:
        layers: the convolutions, in the graph's order.
        edges: (tensor, name of the node that reads it quantised); other readers get it as it is.
        groups: the tensors of the edges, those that share a scale together; each group and all groups in the graph's
            order.
        end: outputs of the convolutions that no other follows: the trunk ends there.
    """

    layers: tuple[Layer, ...]
    edges: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, ...], ...]
    end: tuple[str, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """All quantised activations, each in exactly one group."""
        return tuple(name for group in self.groups for name in group)


def read_plan(model: onnx.ModelProto, keep_float: Collection[str] = ()) -> Plan:
    """The plan for a float deployable graph, whatever wrote it; the layers named in `keep_float` are left out."""
    graph = _Graph(model.graph)
    inner = {node.name: node for node in graph.convolutions if graph.is_inner(node)}
    layers = [node for name, node in inner.items() if name not in keep_float]
    edges = dict.fromkeys((node.input[0], node.name) for node in layers)
    for node in model.graph.node:
        fused, shortcut = graph.residual(node, inner)
        if fused and fused not in keep_float:  # chosen among all, so that one table serves every `keep_float`
            edges[shortcut, node.name] = None
    joined = graph.join(edges)
    end = [node.output[0] for node in graph.convolutions if not graph.follows[node.output[0]]]
    return Plan(
        tuple(Layer(n.name, n.input[0], n.input[1], part_of(n.name, list(n.input)) or _UNNAMED_PART) for n in layers),
        tuple(edges),
        _groups((tensor for tensor, _ in edges), joined, graph.order),
        tuple(end),
    )


class _Graph:
    """Who makes and who reads each tensor, and what lies before and behind."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name for tensor in graph.initializer}
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.read_by: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        self.order = {value.name: 0 for value in graph.input}
        self.depth: defaultdict[str, int] = defaultdict(int)  # most convolutions on a way to this tensor
        for index, node in enumerate(graph.node, start=1):
            most = max((self.depth[name] for name in node.input), default=0) + (node.op_type in _CONVOLUTIONS)
            for name in node.output:
                self.order[name], self.depth[name] = index, most
            for name in dict.fromkeys(node.input):
                self.read_by[name].append(node)
        self.follows: defaultdict[str, bool] = defaultdict(bool)  # whether a convolution is behind this tensor
        self.samples: defaultdict[str, bool] = defaultdict(bool)  # whether it says where one samples
        for node in reversed(graph.node):
            behind = node.op_type in _CONVOLUTIONS or any(self.follows[name] for name in node.output)
            stops = node.op_type in _CONVOLUTIONS | _SAMPLED.keys()
            says = not stops and any(self.samples[name] for name in node.output)
            for index, name in enumerate(node.input):
                self.follows[name] |= behind
                self.samples[name] |= says or index in _SAMPLED.get(node.op_type, ())
        self.convolutions = [node for node in graph.node if node.op_type in _CONVOLUTIONS]

    def is_inner(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution has others before and behind, constant weights, and does not say where to sample."""
        weights = set(node.input[1:]) - {""}
        return (
            node.op_type == "Conv"
            and self.depth[node.input[0]] > 0
            and self.follows[node.output[0]]
            and not self.samples[node.output[0]]
            and weights <= self.constants
        )

    def residual(self, node: onnx.NodeProto, layers: Container[str]) -> tuple[str, str]:
        """Of a sum that a quantised convolution takes in, the convolution's name and the other input, which is to be
        quantised; of two such convolutions the one at the end of the longer way. Empty names: no such sum."""
        if node.op_type != "Add" or any(name in self.constants for name in node.input) or len(set(node.input)) < 2:
            return "", ""
        found = [(self.depth[name], name, self._handed_on_by(name, layers)) for name in node.input]
        fused = [entry for entry in found if entry[2]]
        if not fused:
            return "", ""
        _, tensor, layer = max(fused, key=lambda entry: entry[0])
        return layer, next(name for name in node.input if name != tensor)

    def _handed_on_by(self, tensor: str, layers: Container[str]) -> str:
        """The layer whose result, its folded norm included, this is, and which goes nowhere else; empty: none."""
        maker = self.made_by.get(tensor)
        while maker is not None and len(self.read_by[maker.output[0]]) == 1:
            if maker.name in layers:
                return str(maker.name)
            if maker.op_type not in _FOLDED or not set(maker.input) & self.constants:
                break
            maker = self.made_by.get(next(name for name in maker.input if name not in self.constants))
        return ""

    def join(self, edges: dict[tuple[str, str], None]) -> list[tuple[str, str]]:
        """Add the inputs of joins to `edges`; returns the pairs that share a scale."""
        pairs = []
        waiting = [tensor for tensor, _ in edges]
        seen = set(waiting)
        while waiting:
            tensor = waiting.pop()
            maker = self.made_by.get(tensor)
            if maker is None or maker.op_type not in _JOINS:
                continue
            for name in maker.input if maker.op_type == "Concat" else maker.input[:1]:
                pairs.append((tensor, name))
                edges[name, maker.name] = None
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return pairs


def _groups(tensors: Iterable[str], pairs: list[tuple[str, str]], order: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    """Connected tensors together."""
    group_of = {name: [name] for name in dict.fromkeys(tensors)}
    for one, other in pairs:
        into, away = group_of[one], group_of[other]
        if into is not away:
            into += away
            group_of.update(dict.fromkeys(away, into))
    unique = {id(group): tuple(sorted(group, key=order.__getitem__)) for group in group_of.values()}
    return tuple(sorted(unique.values(), key=lambda group: order[group[0]]))
