"""Appending nodes to a graph, with readable names and no repeated boilerplate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs

Array = npt.NDArray[Any]


class Builder:
    """Appends nodes named "scope.name" to `graph`; each call returns the output tensor (or tensors) of its node.

    Inputs are tensors of the graph or numpy arrays, which become constants. Shapes are left to ONNX's inference.
    """

    def __init__(self, graph: gs.Graph, scope: str) -> None:
        self.graph = graph
        self.scope = scope

    def constant(self, name: str, values: Array) -> gs.Constant:
        """A constant that several nodes may share."""
        return gs.Constant(f"{self.scope}.{name}", np.ascontiguousarray(values))

    def ops(
        self, kind: str, name: str, inputs: Sequence[Any], outputs: int, attrs: Mapping[str, Any] | None = None
    ) -> list[gs.Variable]:
        """Append a node with several outputs."""
        base = f"{self.scope}.{name}"
        tensors = [
            gs.Constant(f"{base}.in{i}", np.ascontiguousarray(x)) if isinstance(x, np.ndarray | np.generic) else x
            for i, x in enumerate(inputs)
        ]
        names = [base] if outputs == 1 else [f"{base}.{i}" for i in range(outputs)]
        results = [gs.Variable(n) for n in names]
        self.graph.nodes.append(gs.Node(kind, base, dict(attrs or {}), tensors, results))
        return results

    def op(self, kind: str, name: str, *inputs: Any, attrs: Mapping[str, Any] | None = None) -> gs.Variable:
        """Append a node with one output."""
        return self.ops(kind, name, inputs, 1, attrs)[0]

    def reshape(self, name: str, x: Any, shape: Sequence[int]) -> gs.Variable:
        return self.op("Reshape", name, x, np.array(shape, np.int64))

    def transpose(self, name: str, x: Any, perm: Sequence[int]) -> gs.Variable:
        return self.op("Transpose", name, x, attrs={"perm": list(perm)})

    def concat(self, name: str, parts: Sequence[Any], axis: int) -> Any:
        """One part is returned as it is."""
        return parts[0] if len(parts) == 1 else self.ops("Concat", name, parts, 1, {"axis": axis})[0]

    def split(self, name: str, x: Any, sizes: Sequence[int], axis: int) -> list[Any]:
        """One size returns `x` as it is."""
        if len(sizes) == 1:
            return [x]
        return list(self.ops("Split", name, [x, np.array(sizes, np.int64)], len(sizes), {"axis": axis}))

    def gather(self, name: str, rows: Any, index: Any) -> gs.Variable:
        """Rows along the first axis."""
        return self.op("Gather", name, rows, index, attrs={"axis": 0})

    def cast(self, name: str, x: Any, dtype: npt.DTypeLike) -> gs.Variable:
        return self.op("Cast", name, x, attrs={"to": int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))})

    def product(self, name: str, x: Any, axis: int) -> gs.Variable:
        """Product along an axis, which stays with length 1."""
        if self.graph.opset >= 18:  # where the axes became an input
            return self.op("ReduceProd", name, x, np.array([axis], np.int64), attrs={"keepdims": 1})
        return self.op("ReduceProd", name, x, attrs={"axes": [axis], "keepdims": 1})

    def topk(self, name: str, x: Any, k: int) -> tuple[gs.Variable, gs.Variable]:
        """The k largest and their int64 indices along the last axis, descending; of equals the lower index first."""
        attrs = {"axis": -1, "largest": 1, "sorted": 1}
        values, indices = self.ops("TopK", name, [x, np.array([k], np.int64)], 2, attrs)
        return values, indices

    def take(self, name: str, rows: Any, index: Any, batch: int, count: int) -> gs.Variable:
        """Rows of each image: `rows` [N * count, ...], int64 `index` [N, m] below `count` -> [N, m, ...]."""
        if batch > 1:
            first = (np.arange(batch, dtype=np.int64) * count).reshape(batch, 1)
            index = self.op("Add", f"{name}.index", index, first)
        return self.gather(name, rows, index)
