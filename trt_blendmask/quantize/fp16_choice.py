"""Which nodes work in float16: those between the normalised image and the decoding of its heads, and the blender.

Read from the flow of the data, not from names, so that it holds for any exporter's graph:

- a convolution works in float16;
- what `boxes`, `scores`, `classes` and `count` are computed from behind the last convolutions (decoding, scores,
  choice, suppression) stays float32, and so do places to sample at (grids of deformable convolutions);
- anything else works in float16 if something it reads is float16 already: the towers' norms, the blender's arithmetic,
  but not the taps of RoIAlign, which are computed from boxes alone;
- an operator that only moves numbers takes the type of what it moves, so that casts come late on the way to float32
  and early on the way to float16: fewer bytes to move, and fewer casts;
- of INT8 codes the type comes back that they were made from, and of INT8 weights the type that is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container

from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN
from trt_blendmask.quantize.types import Ends, FloatGraph

BLENDED = "masks"  # the one output that is not computed in float32
_CONVOLUTIONS = {"Conv", "ConvTranspose"}
_NORMS = {"InstanceNormalization", "GroupNormalization", "BatchNormalization"}
# TensorRT has one type for the picture and the places that are read. The others sum or square many numbers.
_FLOAT32 = {"DeformConv", "GridSample", "RoiAlign", "NonMaxSuppression"} | {
    "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sqrt"
}  # fmt: skip
# Exact in float16, and rounding before is the same as rounding after.
_MOVES = {
    "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Relu", "Reshape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


def choose_half(graph: FloatGraph, too_large: Container[str] = ()) -> frozenset[int]:
    """Numbers of the nodes that work in float16; none that touches a tensor of `too_large` does."""
    nodes, ends = graph.graph.node, graph.ends
    float32 = _float32_nodes(graph)
    barred = {i for i, end in enumerate(ends) if any(name in too_large for name in touched(graph, i, end))}
    half: set[int] = set()
    typed: set[str] = set()  # float16 tensors, and codes made from them
    for i, node in enumerate(nodes):
        data = [node.input[k] for k in ends[i].inputs if node.input[k] not in graph.constants]
        if i in barred or node.op_type in _FLOAT32:
            continue
        if node.op_type == "DequantizeLinear":
            chosen = node.input[0] in typed
        elif node.op_type in _MOVES:
            chosen = bool(data) and typed.issuperset(data)
        else:
            chosen = i not in float32 and (node.op_type in _CONVOLUTIONS or not typed.isdisjoint(data))
        if chosen:
            half.add(i)
            typed.update(node.output[k] for k in ends[i].outputs or range(node.op_type == "QuantizeLinear"))
    return frozenset(half | _moved_to_half(graph, half, barred))


def touched(graph: FloatGraph, i: int, end: Ends) -> list[str]:
    """Tensors of a node's float variable, constants included."""
    node = graph.graph.node[i]
    return [node.input[k] for k in end.inputs] + [node.output[k] for k in end.outputs]


def _float32_nodes(graph: FloatGraph) -> set[int]:
    """Nodes behind the last convolutions on the ways to what must be float32."""
    wanted = {output.name for output in graph.graph.output} - {BLENDED}
    found: set[int] = set()
    for i, node in reversed(list(enumerate(graph.graph.node))):
        others = set(range(len(node.input))) - set(graph.ends[i].inputs)
        if node.domain == PLUGIN_DOMAIN or graph.ends[i].inputs:  # a grid, boxes; not what a Cast reads
            wanted.update(node.input[k] for k in others if node.input[k] in graph.floats - graph.constants)
        if wanted.isdisjoint(node.output) or node.op_type in _CONVOLUTIONS | _NORMS:
            continue
        found.add(i)
        wanted.update(node.input)
    return found


def _moved_to_half(graph: FloatGraph, half: set[int], barred: set[int]) -> set[int]:
    """Movers of float32 whose every reader works in float16."""
    nodes, ends = graph.graph.node, graph.ends
    outputs = {output.name for output in graph.graph.output}
    takes_half: defaultdict[str, list[bool]] = defaultdict(list)
    found: set[int] = set()
    for i, node in reversed(list(enumerate(nodes))):
        made = [node.output[k] for k in ends[i].outputs]
        all_half = bool(made) and all(takes_half[name] and all(takes_half[name]) for name in made)
        if i not in half | barred and node.op_type in _MOVES and all_half and outputs.isdisjoint(made):
            found.add(i)
        works_half = i in half or i in found
        for k, name in enumerate(node.input):
            takes_half[name].append(works_half and k in ends[i].inputs)
    return found
