"""The sparse top: BlendMask's `top_layer` computed at the kept locations only.

Training needs its 3 x 3 convolution everywhere, inference reads at most D places of it. So the 3 x 3 patches of the
bbox tower are gathered behind the selection, and one product [D, 9*C] x [9*C, K*M*M] replaces the convolutions. Exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.builder import Array, Builder
from trt_blendmask.surgery.reading.raw_head import RawHead

_DENSE = "Type: trt-blendmask surgery RAW -o model.onnx --top dense"


@dataclass(frozen=True)
class TopLayer:
    """The convolution found: `towers` float32 [N, C, h, w] per level, weight [K*M*M, C, 3, 3], bias [K*M*M]."""

    towers: tuple[gs.Variable, ...]
    weight: Array
    bias: Array


def find_top_layer(head: RawHead) -> TopLayer:
    """Walk back from each level's top features to its convolution.

    Raises:
        DataError: not a 3 x 3 convolution with padding 1 and the same constant weights on all levels.
    """
    layers = [_convolution(level.top_feats) for level in head.levels]
    first = layers[0]
    for level, layer in zip(head.levels, layers, strict=True):
        if not (np.array_equal(first.weight, layer.weight) and np.array_equal(first.bias, layer.bias)):
            raise DataError(
                f"Expected the top layer to have the same weights on all levels, but those of 'P{level.number}"
                f"top_feats' differ from those of 'P{head.levels[0].number}top_feats'. {_DENSE}"
            )
    return TopLayer(tuple(layer.towers[0] for layer in layers), first.weight, first.bias)


def append_sparse_top(graph: gs.Graph, head: RawHead, top: TopLayer, locations: Any, slots: int) -> gs.Variable:
    """Append the attention at int64 `locations` [N, D]: float32 [N * D, K*M*M]."""
    b = Builder(graph, "top")
    n, count, channels = head.batch, head.locations, top.weight.shape[1]
    flat = [
        b.reshape(f"tower{level.number}", tower, (n, channels, level.locations))
        for level, tower in zip(head.levels, top.towers, strict=True)
    ]
    padding = b.constant("padding", np.zeros((n, channels, 1), np.float32))  # row L: what lies outside the map
    rows = b.transpose("rows", b.concat("towers", [*flat, padding], 2), (0, 2, 1))
    rows = b.reshape("tower_rows", rows, (n * (count + 1), channels))
    neighbours = b.gather("neighbours", b.constant("neighbour_table", neighbour_table(head)), locations)
    index = b.reshape("patch_rows", neighbours, (n, slots * 9))
    patches = b.reshape("patches", b.take("taps", rows, index, n, count + 1), (n * slots, 9 * channels))
    weight = np.ascontiguousarray(top.weight.transpose(2, 3, 1, 0).reshape(9 * channels, -1))
    return b.op("Add", "attention", b.op("MatMul", "product", patches, weight), top.bias)


def append_dense_top(graph: gs.Graph, head: RawHead, locations: Any) -> gs.Variable:
    """Append the gathering of the dense top features at int64 `locations` [N, D]: float32 [N * D, K*M*M]."""
    b = Builder(graph, "top")
    n, count, channels = head.batch, head.locations, int(head.levels[0].top_feats.shape[1])
    flat = [b.reshape(f"top{lv.number}", lv.top_feats, (n, channels, lv.locations)) for lv in head.levels]
    rows = b.reshape("rows", b.transpose("hwc", b.concat("chw", flat, 2), (0, 2, 1)), (n * count, channels))
    return b.reshape("attention", b.take("kept", rows, locations, n, count), (-1, channels))


def neighbour_table(head: RawHead) -> Array:
    """int64 [L, 9]: the numbers of the 3 x 3 neighbours of each location, row by row; L outside the map."""
    parts, first = [], 0
    for level in head.levels:
        h, w = level.hw
        numbers = np.full((h + 2, w + 2), head.locations, np.int64)
        numbers[1:-1, 1:-1] = first + np.arange(h * w).reshape(h, w)
        parts.append(np.stack([numbers[y : y + h, x : x + w].ravel() for y in range(3) for x in range(3)], axis=1))
        first += h * w
    return np.concatenate(parts)


def _convolution(top_feats: gs.Variable) -> TopLayer:
    name = top_feats.name
    if not top_feats.inputs or top_feats.inputs[0].op != "Conv":
        came = top_feats.inputs[0].op if top_feats.inputs else "an input"
        raise DataError(f"Expected '{name}' to come from a Conv, got {came}. {_DENSE}")
    node = top_feats.inputs[0]
    wanted = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1}
    assumed = {**wanted, "pads": [0, 0, 0, 0], "auto_pad": "NOTSET"}
    for key, value in {**wanted, "auto_pad": "NOTSET"}.items():
        got = node.attrs.get(key, assumed[key])
        if (list(got) if isinstance(value, list) else got) != value:
            raise DataError(f"Expected {key} {value} in '{node.name}' before '{name}', got {got}. {_DENSE}")
    constants = [x for x in node.inputs[1:] if isinstance(x, gs.Constant)]
    if len(constants) != len(node.inputs) - 1 or constants[0].values.shape[2:] != (3, 3):
        raise DataError(f"Expected constant 3 x 3 weights in '{node.name}' before '{name}', got others. {_DENSE}")
    weight = np.asarray(constants[0].values)
    bias = np.asarray(constants[1].values) if len(constants) > 1 else np.zeros(len(weight), np.float32)
    return TopLayer((node.inputs[0],), weight, bias)
