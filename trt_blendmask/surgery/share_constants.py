"""Equal constants become one: every step appends its own, and some are in the file already."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_graphsurgeon as gs


def share_constants(graph: gs.Graph) -> None:
    """Let all nodes that read equal constants (type, shape and bits) read one of them."""
    first: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
    chosen: dict[int, gs.Constant] = {}  # by the id of a constant, so that each is looked at once
    for node in graph.nodes:
        for i, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                if id(tensor) not in chosen:
                    values = np.asarray(tensor.values)  # a number stays one: ascontiguousarray would make it a row
                    key = (str(values.dtype), values.shape, hashlib.sha256(values.tobytes()).digest())
                    chosen[id(tensor)] = first.setdefault(key, tensor)
                if chosen[id(tensor)] is not tensor:
                    node.inputs[i] = chosen[id(tensor)]
