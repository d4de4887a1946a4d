"""Arithmetic on shapes becomes constants.

Exporters leave chains of Shape, Slice, Gather, Cast, Div and Concat although all shapes are known. They are worked out
at the file's own opset, before anything else looks at the graph: old Upsample nodes read their scales from them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_blendmask.onnx_bounds import inner_graphs
from trt_blendmask.surgery.reading.merge_weights import Array, Weights, constant_of
from trt_blendmask.surgery.reading.opset import opset_of

_FOLDABLE = """
Add And Cast Ceil Concat ConstantOfShape Div Equal Expand Flatten Floor Gather Greater Identity Less Max Min Mod Mul Neg
Not Pow Range Reciprocal ReduceMax ReduceProd ReduceSum Reshape Round Size Slice Split Sqrt Squeeze Sub Transpose
Unsqueeze Where
"""
FOLDABLE = frozenset(_FOLDABLE.split())
MORE_BYTES = 1 << 26  # that results may have beyond twice the weights': what makes more of nothing is left alone
ROUNDS = 20  # a shape that is known lets others be known; real files need two or three rounds


def fold_shapes(model: onnx.ModelProto, weights: Weights) -> int:
    """Replace nodes of constants by their results, in place; returns how many nodes went.

    Raises:
        Exception: what onnx's shape inference says of graphs that do not hold together.
    """
    before = len(model.graph.node)
    folder = _Folder(model, weights)
    for _ in range(ROUNDS):
        if not folder.fold_once():
            break
    return before - len(model.graph.node)


class _Folder:
    """The constants known so far, and how many bytes more may become known."""

    def __init__(self, model: onnx.ModelProto, weights: Weights) -> None:
        self.model = model
        self.opset = opset_of(model)
        self.known: dict[str, Array] = dict(weights.arrays)
        self.known.update((tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
        self.bytes_left = MORE_BYTES + 2 * weights.bytes_after

    def fold_once(self) -> bool:
        """Work out all that can be, with the shapes that are known by now; False: nothing."""
        graph = self.model.graph
        inferred = _Inferred(onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph)
        outputs = {output.name for output in graph.output}
        folded, kept = {}, []
        for node in graph.node:
            results = None if outputs & set(node.output) else self._results(node, inferred)
            if results is None:
                kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            else:
                self.bytes_left -= sum(values.nbytes for values in results.values())
                folded.update(results)
                self.known.update(results)
        if not folded:
            return False
        del graph.node[:]
        graph.node.extend(kept)
        needed = {name for node in kept for name in _reads(node)}
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in folded.items() if n in needed)
        return True

    def _results(self, node: onnx.NodeProto, inferred: _Inferred) -> dict[str, Array] | None:
        """The outputs of `node`, None if they cannot be known yet or should not."""
        if node.domain not in ("", "ai.onnx"):
            return None
        tensor = constant_of(node)
        if tensor is not None:
            return {node.output[0]: numpy_helper.to_array(tensor)}
        if node.op_type == "Shape":
            source, bounds = node.input[0], {a.name: a.i for a in node.attribute}
            shape = self.known[source].shape if source in self.known else inferred.shapes.get(source)
            if shape is None:
                return None
            return {node.output[0]: np.array(shape[bounds.get("start", 0) : bounds.get("end")], np.int64)}
        if node.op_type == "CastLike" and node.input[0] in self.known and inferred.types.get(node.input[1]):
            kind = helper.tensor_dtype_to_np_dtype(inferred.types[node.input[1]])
            return {node.output[0]: self.known[node.input[0]].astype(kind)}
        if node.op_type not in FOLDABLE or not all(name in self.known for name in node.input if name):
            return None
        if 8 * _size(node.op_type, [self.known[name] for name in node.input if name]) > self.bytes_left:
            return None
        return _evaluate(node, {name: self.known[name] for name in node.input if name}, self.opset)


class _Inferred:
    """What shape inference knows of the tensors: static shapes, and types."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, int] = {}
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            self.types[info.name] = tensor.elem_type
            dims = tensor.shape.dim
            if tensor.HasField("shape") and all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims):
                self.shapes[info.name] = tuple(d.dim_value for d in dims)


def _size(op: str, values: list[Array]) -> float:
    """How many numbers the outputs can have at most."""
    if op in ("ConstantOfShape", "Expand"):
        asked = math.prod(max(abs(int(side)), 1) for side in values[-1].ravel()[:8])
        return max(values[0].size, 1) * asked if values[-1].dtype.kind == "i" else math.inf
    if op == "Range":
        start, limit, delta = (float(value.ravel()[0]) if value.size == 1 else 0.0 for value in values[:3])
        return abs((limit - start) / delta) if delta else math.inf
    if op == "Gather":
        return float(math.prod(max(value.size, 1) for value in values))
    shapes = [value.shape for value in values]
    rank = max(map(len, shapes), default=0)
    sides = [max(shape[-axis] for shape in shapes if len(shape) >= axis) for axis in range(1, rank + 1)]
    return float(math.prod(sides) + sum(value.size for value in values))  # broadcast, or joined


def _reads(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for inner in inner_graphs(node):
        for node_inside in inner.node:
            names |= _reads(node_inside)
        names |= {output.name for output in inner.output}
    return names


def _evaluate(node: onnx.NodeProto, feeds: dict[str, Any], opset: int) -> dict[str, Array] | None:
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
    except Exception:  # a node that cannot be worked out stays, and whoever reads it says why
        return None
    return {name: np.asarray(value) for name, value in zip(node.output, values, strict=False) if name}
