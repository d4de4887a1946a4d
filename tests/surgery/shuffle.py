"""ONNX files as people pass them on: all names lost, outputs in any order."""

from __future__ import annotations

import random

import onnx


def anonymous(content: bytes, seed: int) -> bytes:
    """The same network; tensors, weights and nodes have random names that say nothing, outputs come in random order."""
    rng = random.Random(seed)
    model = onnx.load_model_from_string(content)
    graph = model.graph
    found = {name for node in graph.node for name in (*node.input, *node.output) if name}
    found |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    numbers = rng.sample(range(10 * len(found)), len(found))
    names = {name: f"t{number}" for name, number in zip(sorted(found), numbers, strict=True)}
    for index, node in enumerate(graph.node):
        node.name = rng.choice(["", f"n{index}"])
        del node.metadata_props[:]
        for tensors in (node.input, node.output):
            for i, name in enumerate(tensors):
                tensors[i] = names.get(name, "")
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names[value.name]
    del graph.value_info[:]
    outputs = list(graph.output)
    rng.shuffle(outputs)
    del graph.output[:]
    graph.output.extend(outputs)
    return model.SerializeToString()
