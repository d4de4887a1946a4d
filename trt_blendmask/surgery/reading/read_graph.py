"""From a loaded ONNX model to a graph that surgery can work on: opset 17, shapes known, nothing in it but the network.

In this order: batch -> arithmetic on shapes -> enlarging -> opset -> shapes -> weights -> nodes that do nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, first_line
from trt_blendmask.surgery.reading.fold_shapes import fold_shapes
from trt_blendmask.surgery.reading.group_norm import spell_out_group_norms
from trt_blendmask.surgery.reading.load import OLDEST_IR, Loaded
from trt_blendmask.surgery.reading.merge_weights import Array
from trt_blendmask.surgery.reading.opset import lower_opset, opset_of, raise_opset
from trt_blendmask.surgery.reading.upsample import mend_upsample
from trt_blendmask.surgery.report import StepOutcome

RESERVED = ("images", "count", "boxes", "scores", "classes", "masks")


class _Said:
    """Collects what was done; a step that did nothing says nothing."""

    def __init__(self, nodes: int) -> None:
        self.outcomes: list[StepOutcome] = []
        self.nodes = nodes

    def done(self, name: str, sentence: str, nodes: int) -> None:
        if sentence:
            self.outcomes.append(StepOutcome(name, sentence, self.nodes, nodes))
            self.nodes = nodes


def read_graph(loaded: Loaded, path: Path) -> tuple[gs.Graph, tuple[StepOutcome, ...]]:
    """The graph with the shapes of all its tensors, and what had to be done for it.

    Raises:
        DataError: the file's parts contradict one another.
    """
    said = _Said(len(loaded.model.graph.node))
    said.done("weights", loaded.weights.sentence, said.nodes)
    try:
        graph = _read(loaded, said)
    except DataError:
        raise
    except Exception as error:  # onnx raises several kinds, some from C++
        raise DataError(
            f"'{path}' is an ONNX file that does not hold together: {first_line(error)}. "
            "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
        ) from error
    return graph, tuple(said.outcomes)


def _read(loaded: Loaded, said: _Said) -> gs.Graph:
    model = loaded.model
    model.ir_version = OLDEST_IR
    said.done("batch", fix_batch(model), said.nodes)
    _drop_defaults(model)
    spelled = spell_out_group_norms(model, opset_of(model))  # first: the checker calls that of opset 18 deprecated
    _check(model)
    said.done("spelled_out", f"{spelled} GroupNormalization nodes" if spelled else "", len(model.graph.node))
    folded = fold_shapes(model, loaded.weights)
    nodes = len(model.graph.node)
    said.done("constants", "arithmetic on shapes became constants" if folded else "", nodes)
    said.done("upsample", mend_upsample(model, opset_of(model)), nodes)
    model = raise_opset(model)
    fold_shapes(model, loaded.weights)  # the converter writes Constant nodes
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    graph = gs.import_onnx(model)
    graph.name = "blendmask"
    _put_weights_back(graph, loaded.weights.arrays)
    remove_identities(graph)
    graph.cleanup().toposort()
    said.done("opset", lower_opset(graph), len(graph.nodes))
    return graph


def fix_batch(model: onnx.ModelProto) -> str:
    """Engines here have fixed sizes: a batch that the file leaves open becomes 1. Done in place.

    Of the blender alone the boxes and their attention are open, which are no batch.
    """
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input if value.type.tensor_type.shape.dim]
    open_ones = [dims for dims in shapes if not dims[0].HasField("dim_value") or dims[0].dim_value <= 0]
    opened = len(open_ones) == 1 and len(open_ones[0]) == 4
    if opened:
        open_ones[0][0].dim_value = 1
    for value in model.graph.output if opened else ():
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") or dim.dim_value <= 0:
                dim.Clear()
    return "the open batch is fixed to 1 image" if opened else ""


def _check(model: onnx.ModelProto) -> None:
    """onnx's checker, which alone insists on shapes of the outputs: some tools leave them out."""
    shapeless = [o.type.tensor_type for o in model.graph.output if not o.type.tensor_type.HasField("shape")]
    for kind in shapeless:
        kind.shape.SetInParent()
    onnx.checker.check_model(model)
    for kind in shapeless:
        kind.ClearField("shape")


def _drop_defaults(model: onnx.ModelProto) -> None:
    """`allowzero` 0 says nothing, and files that were relabelled to an older opset have it where it is unknown."""
    for node in model.graph.node:
        if node.op_type == "Reshape":
            kept = [a for a in node.attribute if a.name != "allowzero" or a.i]
            if len(kept) < len(node.attribute):
                del node.attribute[:]
                node.attribute.extend(kept)


def _put_weights_back(graph: gs.Graph, arrays: dict[str, Array]) -> None:
    for tensor in graph.inputs:
        if tensor.name in arrays:
            tensor.to_constant(arrays[tensor.name])
    graph.inputs = [tensor for tensor in graph.inputs if isinstance(tensor, gs.Variable)]


def remove_identities(graph: gs.Graph) -> None:
    """Take out Identity nodes, and Dropout, which is one once trained; names of outputs stay."""
    outputs = {id(tensor) for tensor in graph.outputs}
    for node in graph.nodes:
        if node.op not in ("Identity", "Dropout") or any(output.outputs for output in node.outputs[1:]):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if id(result) in outputs:
            if id(source) in outputs or not source.inputs or isinstance(source, gs.Constant):
                continue  # one tensor cannot have two names
            node.outputs.clear()
            source.name = result.name
            _replace(graph.outputs, result, source)
            outputs.add(id(source))
        node.inputs.clear()
        for reader in list(result.outputs):
            _replace(reader.inputs, result, source)


def _replace(tensors: Any, old: gs.Tensor, new: gs.Tensor) -> None:
    for i, tensor in enumerate(tensors):
        if tensor is old:
            tensors[i] = new


def free_names(graph: gs.Graph) -> None:
    """Rename tensors that have one of the names the deployable contract needs."""
    for name, tensor in graph.tensors().items():
        if name in RESERVED:
            tensor.name = f"raw.{name}"
