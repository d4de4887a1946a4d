"""ONNX files: random changes of a good graph, and graphs made to exhaust whoever folds, inlines or walks them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fuzz.mutate import Seed, without
from trt_blendmask.structures import METADATA_KEY

Model = onnx.ModelProto
INTEGERS = (0, -1, 1, 2, 3, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))
OPS = (
    "Conv", "Relu", "Add", "Resize", "Upsample", "Reshape", "Shape", "Slice", "Gather", "Concat", "Cast", "Split",
    "DepthToSpace", "SpaceToDepth", "MaxPool", "AveragePool", "Einsum", "Expand", "Tile", "Pad", "OneHot", "Range",
    "TopK", "If", "Loop", "Scan", "RoiAlign", "GridSample", "DeformConv", "MatMul", "Gemm", "ConvTranspose", "LSTM",
    "NoSuchOp", "",
    "InstanceNormalization", "BatchNormalization", "GroupNormalization", "Unsqueeze", "Squeeze", "Transpose", "Softmax",
    "ReduceSum", "ConstantOfShape", "Constant", "EyeLike", "Sequence", "NonMaxSuppression", "QuantizeLinear", "CumSum",
)  # fmt: skip


def seed(data: bytes) -> Seed:
    """The file, with its large weights as bulk."""
    model = onnx.load_model_from_string(data)
    return without(data, [tensor.raw_data for tensor in model.graph.initializer if len(tensor.raw_data) >= 64])


def altered(data: bytes, rng: random.Random) -> bytes:
    """One to four random changes that keep it a protobuf message."""
    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_CHANGES)(model, rng)
    return model.SerializeToString()


def _node(model: Model, rng: random.Random) -> Any:
    return rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _tensor(model: Model, rng: random.Random) -> Any:
    return rng.choice(model.graph.initializer) if model.graph.initializer else model.graph.initializer.add()


def _value(model: Model, rng: random.Random) -> Any:
    graph = model.graph
    return rng.choice([*graph.input, *graph.output, *graph.output, *graph.value_info])


def _delete_node(model: Model, rng: random.Random) -> None:
    if len(model.graph.node) > 1:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def _duplicate_node(model: Model, rng: random.Random) -> None:
    model.graph.node.add().CopyFrom(_node(model, rng))


def _rewire(model: Model, rng: random.Random) -> None:
    node, other = _node(model, rng), _node(model, rng)
    names = [*other.output, *other.input, "", "nowhere"]
    ends = node.input if rng.random() < 0.8 else node.output
    if ends:
        ends[rng.randrange(len(ends))] = rng.choice(names)


def _drop_end(model: Model, rng: random.Random) -> None:
    node = _node(model, rng)
    ends = node.input if rng.random() < 0.7 else node.output
    if ends:
        del ends[rng.randrange(len(ends))]


def _add_end(model: Model, rng: random.Random) -> None:
    (_node(model, rng).input if rng.random() < 0.7 else _node(model, rng).output).append(_tensor(model, rng).name)


def _operator(model: Model, rng: random.Random) -> None:
    _node(model, rng).op_type = rng.choice(OPS)


def _domain(model: Model, rng: random.Random) -> None:
    _node(model, rng).domain = rng.choice(
        ("ai.onnx", "ai.onnx.ml", "com.microsoft", "x" * 999, "\n", "ai.onnx.training")
    )


def _attribute(model: Model, rng: random.Random) -> None:
    node = _node(model, rng)
    if not node.attribute or rng.random() < 0.2:
        names = (
            "axis",
            "group",
            "to",
            "kernel_shape",
            "strides",
            "blocksize",
            "num_groups",
            "mode",
            "value",
            "perm",
            "x",
        )
        made = helper.make_attribute(
            rng.choice(names), rng.choice((rng.choice(INTEGERS), [rng.choice(INTEGERS)] * 3, "a"))
        )
        node.attribute.append(made)
        return
    at = rng.randrange(len(node.attribute))
    attribute, kind = node.attribute[at], rng.random()
    if kind < 0.15:
        del node.attribute[at]
    elif kind < 0.25:
        attribute.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13))
    elif kind < 0.35 and attribute.ints:
        del attribute.ints[rng.randrange(len(attribute.ints))]
    elif attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(INTEGERS)
    else:
        attribute.i, attribute.f, attribute.s = (
            rng.choice(INTEGERS),
            rng.choice(FLOATS),
            rng.choice((b"", b"\xff", b"linear")),
        )


def _weight_shape(model: Model, rng: random.Random) -> None:
    tensor, kind = _tensor(model, rng), rng.random()
    if kind < 0.2 or not tensor.dims:
        tensor.dims.append(rng.choice(INTEGERS))
    elif kind < 0.4:
        del tensor.dims[rng.randrange(len(tensor.dims))]
    else:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(INTEGERS)


def _weight_type(model: Model, rng: random.Random) -> None:
    _tensor(model, rng).data_type = rng.choice((*range(26), 99, -1))


def _weight_data(model: Model, rng: random.Random) -> None:
    tensor, kind = _tensor(model, rng), rng.random()
    if kind < 0.4:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind < 0.6:
        tensor.ClearField("raw_data")
    elif kind < 0.8:
        values = np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // 4 * 4], np.float32).copy()
        values[: rng.randrange(len(values) + 1)] = rng.choice(FLOATS)
        tensor.raw_data = values.tobytes()
    else:
        tensor.float_data.extend([1.0] * rng.choice((1, 9)))
        tensor.string_data.append(b"x")


def _weight_name(model: Model, rng: random.Random) -> None:
    _tensor(model, rng).name = rng.choice((_tensor(model, rng).name, "", "bases", "a\nb\x1b[31m", "n" * 100_000))


def _external(model: Model, rng: random.Random) -> None:
    point_outside(_tensor(model, rng), rng.choice(OUTSIDE))


def _declared(model: Model, rng: random.Random) -> None:
    info = _value(model, rng)
    tensor, kind = info.type.tensor_type, rng.random()
    if kind < 0.2:
        tensor.elem_type = rng.randrange(25)
    elif kind < 0.3:
        info.type.ClearField("tensor_type")
    elif kind < 0.4:
        info.name = rng.choice((_value(model, rng).name, "", "P3logits", "x"))
    elif kind < 0.5 or not tensor.shape.dim:
        tensor.shape.dim.add().dim_value = rng.choice(INTEGERS)
    elif kind < 0.6:
        tensor.shape.dim[rng.randrange(len(tensor.shape.dim))].dim_param = "n"
    else:
        tensor.shape.dim[rng.randrange(len(tensor.shape.dim))].dim_value = rng.choice(INTEGERS)


def _delete_value(model: Model, rng: random.Random) -> None:
    values = rng.choice((model.graph.input, model.graph.output, model.graph.initializer))
    if len(values) > 0:
        del values[rng.randrange(len(values))]


def _versions(model: Model, rng: random.Random) -> None:
    if rng.random() < 0.8 and model.opset_import:
        model.opset_import[0].version = rng.choice((*range(26), *INTEGERS))
    else:
        model.ir_version = rng.choice((0, 1, 3, 4, 7, 13, 99, *INTEGERS))


def _metadata(model: Model, rng: random.Random) -> None:
    entry = next((e for e in model.metadata_props if e.key == METADATA_KEY), None)
    if entry is None:
        entry = model.metadata_props.add()
        entry.key = METADATA_KEY
    text, kind = entry.value, rng.random()
    if kind < 0.3:
        at = rng.randrange(len(text) + 1)
        entry.value = (
            text[:at] + rng.choice(("", "x", "9" * 5000, "[" * 20_000, "NaN", '"', "\0", "\ud7ff")) + text[at + 1 :]
        )
    else:
        numbers = [i for i, c in enumerate(text) if c.isdigit()]
        at = rng.choice(numbers) if numbers else 0
        value = rng.choice((*map(str, INTEGERS), "1e999", "NaN", "-0.0", "null", "true", "[]", '"a"', "1e300", "0.5"))
        entry.value = text[:at] + value + text[at + 1 :]


_CHANGES: tuple[Callable[[Model, random.Random], None], ...] = (
    _delete_node, _duplicate_node, _rewire, _rewire, _drop_end, _add_end, _operator, _operator, _domain, _attribute,
    _attribute, _attribute, _weight_shape, _weight_shape, _weight_type, _weight_data, _weight_name, _external,
    _declared, _declared, _delete_value, _versions, _metadata, _metadata,
)  # fmt: skip
OUTSIDE = (
    "../outside.bin",
    "/etc/passwd",
    "weights.bin",
    "a/../../outside.bin",
    "",
    "/dev/zero",
    "weights.bin\0.txt",
    "..",
)


def point_outside(tensor: Any, location: str, length: int = 64) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
