"""A raw-head ONNX of a published configuration at full size with drawn weights, as AdelaiDet's exporter writes it.

No checkpoint is needed. The weights are drawn so that activations stay near 1 and, as with a trained network, few of
the (location, class) pairs pass the threshold.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from safetensors.numpy import save_file

from benchmarks.export import published_shapes
from trt_blendmask.export import export_onnx, read_config

SPREAD = 1.05  # about the standard deviation of the class logits: some hundred pairs pass 0.05
LEVELS = {  # by how a key ends; all other vectors are 0
    "cls_logits.bias": -4.6,  # what FCOS starts training with: sigmoid(-4.6) = 0.01
    "bbox_pred.bias": 2.0,
    "stem.conv1.norm.weight": 0.02,  # pixels are large
    "conv3.norm.weight": 0.2,  # a residual block adds little to its input
    "weight": 1.0,
    "running_var": 1.0,
    "scale": 1.0,
}


def write_drawn(preset: str, input_hw: tuple[int, int], output: Path, seed: int = 0) -> None:
    """Write our export of `preset` with drawn weights."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "drawn.safetensors"
        save_file(draw_weights(preset, seed), checkpoint)
        export_onnx(checkpoint, read_config(preset=preset), output, input_hw)


def draw_weights(preset: str, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """A state dict with AdelaiDet's keys."""
    random = np.random.default_rng(seed)
    return {key: _draw(key, shape, random) for key, shape in published_shapes(preset).items()}


def _draw(key: str, shape: tuple[int, ...], random: np.random.Generator) -> npt.NDArray[np.float32]:
    if len(shape) == 4:
        variance = (SPREAD**2 if "cls_logits" in key else 2) / float(np.prod(shape[1:]))
        return random.standard_normal(shape, np.float32) * np.float32(variance**0.5)
    level = next((value for ending, value in LEVELS.items() if key.endswith(ending)), 0)
    return np.full(shape, level, np.float32)


def as_adelaidet_writes(raw: Path, output: Path, weights_as_inputs: bool = True) -> None:
    """Bring our export into the form of AdelaiDet's exporter (TorchScript): the same arithmetic, op for op.

    Each node has its own copy of what it reads, so the head's weights are there once per level; group norm reads its
    shape back by Shape; and each weight is a graph input as well (`keep_initializers_as_inputs=True`), which keeps
    ONNX Runtime from preparing it. Other shape arithmetic is left out: ONNX Runtime folds it while loading.
    """
    model = onnx.load(raw)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    used: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    for node in graph.node:
        if node.name.endswith("norm.join"):
            before = producer[producer[node.input[0]].input[0]].input[0]
            node.input[1] = f"{node.name}.shape"
            nodes.append(onnx.helper.make_node("Shape", [before], [node.input[1]], node.input[1]))
        for i, name in enumerate(node.input):
            if name in constants:
                if name in used:
                    node.input[i] = f"{node.name}.in{i}"
                tensors.append(onnx.TensorProto())
                tensors[-1].CopyFrom(constants[name])
                tensors[-1].name = node.input[i]
                used.add(name)
        nodes.append(node)
    inputs = [onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors if weights_as_inputs]
    made = onnx.helper.make_graph(nodes, graph.name, [*graph.input, *inputs], graph.output, tensors)
    graph.CopyFrom(made)
    onnx.checker.check_model(model)
    onnx.save(model, output)
