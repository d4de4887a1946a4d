"""From the nodes that ONNX Runtime runs, fused and renamed, back to those of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import onnx

from trt_blendmask.profiler.layers.parts import OTHER, fine_part, plain_name
from trt_blendmask.surgery.macs import LAYERS, macs_by_node

# What ONNX Runtime fuses into the product before it, and looks through.
_FUSED = (
    *("Relu", "LeakyRelu", "Clip", "Add", "Mul", "Sigmoid", "HardSigmoid", "BatchNormalization"),
    *("Cast", "Transpose", "QuantizeLinear", "DequantizeLinear"),
)


class Origin:
    """The model as it was, and the optimised graph that runs.

    Attributes:
        macs: multiply-adds by name of the model's node.
    """

    def __init__(self, model: onnx.ModelProto, optimised: onnx.GraphProto) -> None:
        """Args:
            model: as loaded. optimised: what ONNX Runtime saved of it.

        Raises:
            DataError: shapes that contradict one another.
        """
        self._nodes = {node.name: node for node in model.graph.node}
        self._maker = {name: node for node in model.graph.node for name in node.output}
        counted = list(macs_by_node(model))
        self.macs = {node.name: macs for node, _, macs in counted}
        self._parts = self._all_parts(model.graph, {node.name: part for node, part, _ in counted})
        self._run = {node.name: node for node in optimised.node}
        self._run_maker = {name: node for node in optimised.node for name in node.output}
        self._run_reader = {name: node for node in reversed(optimised.node) for name in node.input}

    def part(self, name: str) -> str:
        """Of the running node `name`: what it, its weights or what it makes are called; else of what it reads, or of
        what reads it.
        """
        if (node := self._run.get(name)) is None:
            return fine_part(plain_name(name)) or OTHER
        before = self._first_told(node, lambda node: (self._run_maker.get(one) for one in node.input))
        return before or self._first_told(node, lambda node: map(self._run_reader.get, node.output)) or OTHER

    def _first_told(
        self, start: onnx.NodeProto, following: Callable[[onnx.NodeProto], Iterable[onnx.NodeProto | None]]
    ) -> str:
        node: onnx.NodeProto | None = start
        seen = set[str]()
        while node is not None and node.name not in seen:
            if part := self._told(node):
                return part
            seen.add(node.name)
            node = next((one for one in following(node) if one is not None), None)
        return ""

    def work(self, names: list[str]) -> dict[str, int]:
        """Multiply-adds of the running nodes `names`; a node of the model is counted for one of them only."""
        taken: dict[str, str] = {}
        for name in names:  # those that kept their names, before those that have the name of what was fused behind
            if (plain := plain_name(name)) in self.macs:
                taken.setdefault(plain, name)
        named = set(taken.values())
        for name in names:
            if name not in named and (behind := self._behind(name, taken)):
                taken[behind] = name
        return {name: self.macs[plain] for plain, name in taken.items()}

    def is_new(self, name: str) -> bool:
        """Whether ONNX Runtime put the node in."""
        return name not in self._nodes

    def _told(self, node: onnx.NodeProto) -> str:
        if (known := self._parts.get(plain_name(node.name), "")) or (known := fine_part(plain_name(node.name))):
            return known
        if weights := fine_part("", [plain_name(one) for one in node.input]):
            return weights
        original = self._original(node)
        return self._parts[original.name] if original is not None else ""

    def _original(self, running: onnx.NodeProto) -> onnx.NodeProto | None:
        """The model's node of that name, or that makes the tensor of that name, or what the running one makes."""
        name = plain_name(running.name)
        ends = (name, *map(plain_name, running.output))
        return self._nodes.get(name) or next((self._maker[end] for end in ends if end in self._maker), None)

    def _behind(self, name: str, taken: dict[str, str]) -> str:
        """The nearest product before the model's node that `name` stands for, through what is fused; "" none."""
        running = self._run.get(name)
        start = self._original(running) if running is not None and _is_product(running.op_type) else None
        if start is None:
            return ""
        queue, seen = deque([start]), {start.name}
        while queue:
            node = queue.popleft()
            if node.name in self.macs and node.name not in taken:
                return str(node.name)
            if node.op_type in _FUSED or node is start:
                makers = [self._maker[one] for one in node.input if one in self._maker]
                queue.extend(maker for maker in makers if maker.name not in seen)
                seen.update(maker.name for maker in makers)
        return ""

    def _all_parts(self, graph: onnx.GraphProto, counted: dict[str, str]) -> dict[str, str]:
        """Of each node of the model; one whose name and weights tell nothing is of the part of what it reads."""
        parts: dict[str, str] = {}
        for node in graph.node:
            makers = [self._maker[one] for one in node.input if one in self._maker]
            before = next((part for maker in makers if (part := parts.get(maker.name, ""))), "")
            parts[node.name] = fine_part(node.name, node.input) or counted.get(node.name, "") or before
        return parts


def _is_product(op: str) -> bool:
    return op.removeprefix("Fused") in LAYERS or op.startswith("QLinear")
