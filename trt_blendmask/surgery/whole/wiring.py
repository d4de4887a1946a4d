"""Who makes and who reads each tensor of an ONNX model, at whatever opset it came.

Read before the opset is changed: onnx's version converter leaves the bodies of `If` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper, numpy_helper

from trt_blendmask.errors import DataError
from trt_blendmask.onnx_bounds import inner_graphs
from trt_blendmask.surgery.reading.merge_weights import Array

VIEWS = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout"}
# Inputs that say how to shape, not what to compute.
SHAPE_INPUTS = {"Resize": (1, 2, 3), "ConstantOfShape": (0,), "Slice": (1, 2, 3, 4)}
SHAPE_INPUTS |= dict.fromkeys(
    ("Reshape", "Upsample", "Expand", "Tile", "Squeeze", "Unsqueeze", "Split", "ReduceSum", "ReduceMax"), (1,)
)


@dataclass(frozen=True)
class Wiring:
    """The top-level graph of `model`, in topological order.

    Attributes:
        producers: node by output name. consumers: nodes by input name, those that read it inside a body included.
        constants: values by name, those that travel beside the model included.
        shapes: by name, 0 where a side is not static.
    """

    model: onnx.ModelProto
    producers: dict[str, onnx.NodeProto]
    consumers: dict[str, list[onnx.NodeProto]]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]

    @property
    def inputs(self) -> list[str]:
        return [value.name for value in self.model.graph.input if value.name not in self.constants]

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.model.graph.output]

    def producer(self, name: str) -> onnx.NodeProto | None:
        """None for inputs and constants."""
        return None if name in self.constants else self.producers.get(name)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self.shapes.get(name)

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """What the node computes with: neither constants nor shapes."""
        skipped = SHAPE_INPUTS.get(node.op_type, ())
        return [x for i, x in enumerate(node.input) if x and x not in self.constants and i not in skipped]

    def before(self, names: Iterable[str], stop: Collection[str] = ()) -> set[str]:
        """All tensors that `names` are computed from, themselves included, not looking behind `stop`."""
        seen: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            node = None if name in stop else self.producer(name)
            if node is not None:
                todo += [x for x in reads(node) if x not in seen]
        return seen

    def after(self, name: str) -> set[str]:
        """All tensors that are computed from `name`, which is not included."""
        seen: set[str] = set()
        todo = [name]
        while todo:
            for node in self.consumers.get(todo.pop(), ()):
                fresh = [x for x in node.output if x and x not in seen]
                seen.update(fresh)
                todo += fresh
        return seen

    def makers(self, names: Collection[str]) -> list[onnx.NodeProto]:
        """The nodes that make tensors of `names`, in the graph's order."""
        return [node for node in self.model.graph.node if any(x in names for x in node.output)]

    def unviewed(self, name: str) -> str:
        """The tensor behind views that keep the order of the elements."""
        node = self.producer(name)
        while node is not None and node.op_type in VIEWS and self.data_inputs(node)[:1]:
            name = self.data_inputs(node)[0]
            node = self.producer(name)
        return name


def read_wiring(model: onnx.ModelProto, weights: Mapping[str, Array]) -> Wiring:
    """`model`, whose large `weights` may be inputs; shapes are inferred as far as that goes, without complaint.

    Raises:
        DataError: the nodes are not in order, or a tensor is made twice.
    """
    producers: dict[str, onnx.NodeProto] = {}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    constants = dict(weights)
    constants.update((tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    known = {value.name for value in model.graph.input} | set(constants)
    for node in model.graph.node:
        read, made = dict.fromkeys(reads(node)), [name for name in node.output if name]
        if not known >= read.keys() or known & set(made) or not made:
            raise DataError(
                f"Expected nodes in order, each tensor made once, got '{node.name}' ({node.op_type}), which reads or "
                "makes another: the file does not hold together."
            )
        known.update(made)
        producers.update(dict.fromkeys(made, node))
        for name in read:
            consumers.setdefault(name, []).append(node)
    shapes = _shapes(model)
    shapes.update((name, value.shape) for name, value in constants.items())
    return Wiring(model, producers, consumers, constants, shapes)


def reads(node: onnx.NodeProto) -> list[str]:
    """All that `node` reads, what its bodies take from outside included."""
    names = [name for name in node.input if name]
    for body in inner_graphs(node):
        inner = {x for n in body.node for x in n.output} | {t.name for t in body.initializer}
        inner |= {value.name for value in body.input}
        captured = [x for n in body.node for x in reads(n)] + [value.name for value in body.output]
        names += [x for x in captured if x not in inner]
    return names


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """By name, text as str."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode(errors="replace") if isinstance(v, bytes) else v for name, v in values.items()}


def described(name: str, like: Array) -> onnx.ValueInfoProto:
    """The declaration of a tensor with the type and shape of `like`."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), like.shape)


def cut_part(
    wiring: Wiring,
    inputs: Mapping[str, onnx.ValueInfoProto],
    outputs: Mapping[str, str],
    apart: Collection[str] = (),
) -> onnx.ModelProto:
    """A model of what lies between `inputs` and `outputs` (tensor: new name).

    Constants come with it, those named in `apart` as inputs.

    Raises:
        KeyError: something in between needs an input of the graph that is not among `inputs`.
    """
    needed = wiring.before(outputs, inputs)
    missing = sorted(needed & set(wiring.inputs) - set(inputs))
    if missing:
        raise KeyError(missing[0])
    nodes = [n for n in wiring.model.graph.node if any(x in needed and x not in inputs for x in n.output)]
    nodes += [helper.make_node("Identity", [old], [new]) for old, new in outputs.items() if old != new]
    constants = sorted(needed & set(wiring.constants) - set(inputs))
    values = list(inputs.values())
    values += [described(name, wiring.constants[name]) for name in constants if name in apart]
    inside = [numpy_helper.from_array(wiring.constants[name], name) for name in constants if name not in apart]
    results = [onnx.ValueInfoProto(name=name) for name in outputs.values()]
    graph = helper.make_graph(nodes, wiring.model.graph.name or "part", values, results, inside)
    part = helper.make_model(graph, opset_imports=wiring.model.opset_import, ir_version=8)
    part.metadata_props.extend(wiring.model.metadata_props)
    return part


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    with suppress(Exception):  # its C++ side raises several kinds; what the file itself declares is left
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        if value.type.tensor_type.HasField("shape"):
            sides = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(max(side.dim_value, 0) for side in sides)
    return shapes
