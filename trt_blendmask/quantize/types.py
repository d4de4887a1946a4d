"""Which ends of each node hold floats that may become float16, read from the operators' own definitions.

An ONNX operator has type variables: all ends of one variable have one type. Here a node has one float variable, that
of its first float input (a Resize's picture, not its scales; a GridSample's picture, not its grid); other float ends
stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from trt_blendmask.errors import DataError, first_line
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN
from trt_blendmask.surgery.reading.merge_weights import without_weights

HALF = "tensor(float16)"
_PLUGIN_ENDS = (0, 2)  # RoiAlignBlend's bases and attention; its boxes and its masks have types of their own
_PLUGIN_MASKS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


@dataclass(frozen=True)
class Ends:
    """Positions among a node's inputs and outputs that hold its float variable."""

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class FloatGraph:
    """A graph in float32 with what is known of its types.

    Attributes:
        ends: of each node, in the graph's order.
        floats: names of all float32 tensors, constants included.
        constants: names of the initializers.
    """

    graph: onnx.GraphProto
    ends: tuple[Ends, ...]
    floats: frozenset[str]
    constants: frozenset[str]


def read_floats(model: onnx.ModelProto) -> FloatGraph:
    """Infer the types of all tensors and read the ends of all nodes.

    Raises:
        DataError: the graph's types contradict one another, or an operator that ONNX does not know.
    """
    types = _element_types(model)
    floats = frozenset(name for name, kind in types.items() if kind == TensorProto.FLOAT)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    ends = tuple(_ends(node, floats, opset) for node in model.graph.node)
    return FloatGraph(model.graph, ends, floats, frozenset(tensor.name for tensor in model.graph.initializer))


def drop_output_casts(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Let outputs that a Cast makes float16 be, in place, the float32 tensors that it reads: they may become float16
    without it. Returns these outputs, now declared as float32."""
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    found = []
    for output in graph.output:
        cast = made_by.get(output.name)
        if output.type.tensor_type.elem_type != TensorProto.FLOAT16 or cast is None or cast.op_type != "Cast":
            continue
        source = cast.input[0]
        if source not in made_by or sum(list(node.input).count(source) for node in graph.node) != 1:
            continue
        maker = made_by[source]
        maker.output[list(maker.output).index(source)] = output.name
        graph.node.remove(cast)
        output.type.tensor_type.elem_type = TensorProto.FLOAT
        found.append(output)
    return found


def declare_types(model: onnx.ModelProto) -> None:
    """Write the type of every tensor between inputs and outputs into the graph, in place.

    Raises:
        DataError: they contradict one another.
    """
    values = [info for info in _inferred(model).value_info if info.type.tensor_type.elem_type]
    del model.graph.value_info[:]
    model.graph.value_info.extend(values)


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = _inferred(model)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        types.setdefault(info.name, info.type.tensor_type.elem_type)
    return types


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with a type for every tensor, and without its weights; what the file declared inside does not count.

    Raises:
        DataError: the types contradict one another.
    """
    light = without_weights(model)
    del light.graph.value_info[:]
    outputs = {output.name for output in light.graph.output}
    for node in light.graph.node:
        if node.domain == PLUGIN_DOMAIN and node.output[0] not in outputs:  # which ONNX does not know
            masks = next((a.s.decode() for a in node.attribute if a.name == "mask_dtype"), "float32")
            kind = _PLUGIN_MASKS.get(masks, TensorProto.FLOAT)
            light.graph.value_info.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception as error:  # onnx raises several kinds, some from C++
        raise DataError(
            f"The graph's types contradict one another: {first_line(error)[:200]}. "
            "Make the file again: trt-blendmask surgery raw.onnx -o model.onnx"
        ) from error


def _ends(node: onnx.NodeProto, floats: frozenset[str], opset: int) -> Ends:
    if node.domain == PLUGIN_DOMAIN:
        return Ends(inputs=_PLUGIN_ENDS)
    if node.op_type == "Cast":  # reads any type, and its output's is its own
        return Ends()
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError as error:
        raise DataError(f"Node '{node.name}' is {node.op_type}, which opset {opset} does not know.") from error
    may_be_half = {c.type_param_str for c in schema.type_constraints if HALF in c.allowed_type_strs}
    inputs = {i: _variable(schema.inputs, i) for i, name in enumerate(node.input) if name in floats}
    outputs = {i: _variable(schema.outputs, i) for i, name in enumerate(node.output) if name in floats}
    variable = next((v for v in (*inputs.values(), *outputs.values()) if v in may_be_half), None)
    if variable is None:
        return Ends()
    return Ends(*(tuple(i for i, v in ends.items() if v == variable) for ends in (inputs, outputs)))


def _variable(formal: list[onnx.defs.OpSchema.FormalParameter], position: int) -> str:
    return str(formal[min(position, len(formal) - 1)].type_str)  # the last may stand for many
