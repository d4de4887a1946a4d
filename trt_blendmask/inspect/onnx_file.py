"""An ONNX file of any origin: which stage of the pipeline it is, its parts, types and multiply-adds; nothing is run."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner

from trt_blendmask.errors import DataError
from trt_blendmask.files import file_sha256
from trt_blendmask.inspect.findings import Findings, WeightRow
from trt_blendmask.layout import amount, printable
from trt_blendmask.onnx_bounds import MAX_RANK, check_parts
from trt_blendmask.structures import ModelSpec, TensorSpec
from trt_blendmask.surgery.macs import LAYERS, part_of
from trt_blendmask.surgery.part_rows import PartRow, graph_part_rows, part_rows, sum_of
from trt_blendmask.surgery.reading.load import load_raw, metadata
from trt_blendmask.surgery.reading.looks_like import TAIL, TRUNK, kind_of, read_traits
from trt_blendmask.surgery.reading.opset import opset_of
from trt_blendmask.surgery.reading.parts import name_parts
from trt_blendmask.surgery.reading.raw_head import DEPLOYABLE, RawHead, find_raw_head
from trt_blendmask.surgery.reading.read_graph import fix_batch, read_graph

MAX_BYTES = 2**31 - 1  # protobuf's own limit
_SHOWN, _LONG, _LONGEST = 12, 40, 200
_RUNS_IN = {
    "native": "ONNX Runtime, TensorRT 10 and newer, TensorRT-RTX",
    "plugin": "TensorRT 10 and newer with libtrt_blendmask.so (make plugin); nowhere else",
    "aot": "TensorRT 10.9 and newer (trt_blendmask.aot.register() before parsing); nowhere else",
}
_KIND_WORDS = {
    "raw-head-onnx": "a raw-head ONNX",
    "deployable-onnx": "a deployable ONNX",
    "trunk-onnx": "the trunk that 'surgery --split' wrote",
    "tail-onnx": "the tail that 'surgery --split' wrote",
    "onnx": "an ONNX of another kind or a whole one",
}


@dataclass(frozen=True)
class _Read:
    """A model; `outside` are the names of weights that lie in other files, for which inputs stand here."""

    model: onnx.ModelProto
    outside: frozenset[str]
    other_files: tuple[str, ...]


def inspect_onnx(file: Path) -> Findings:
    """Tell what the ONNX `file` is.

    Raises:
        DataError: no ONNX, cut short, without a network, or made to exhaust who reads it.
    """
    read = _read(file)
    model = read.model
    notes = [f"Weights lie in '{name}', which belongs beside it." for name in read.other_files]
    inputs, outputs, weights = _inputs(read), _specs(model.graph.output), _weights(read)
    spec = _spec(model, notes)
    kind = _kind(model, spec)
    head = _heads(file) if kind == "onnx" and spec is None else None
    kind, parts = ("raw-head-onnx", head[1]) if head is not None else (kind, _parts(model, kind, notes))
    if kind == "onnx":
        notes.append(_what_it_looks_like(model, file))
    precision = _precision(parts)
    size = amount(file.stat().st_size, "B")
    settings = [] if head is None else [("heads", _of_heads(head[0]))]
    return Findings(
        file,
        kind,
        ", ".join(filter(None, (_KIND_WORDS[kind], precision, size))),
        file.stat().st_size,
        file_sha256(file),
        facts=(*_facts(model), *settings, *([("runs in", _RUNS_IN[spec.tail])] if spec and spec.tail else [])),
        inputs=inputs,
        outputs=outputs,
        parts=parts,
        weights=weights,
        spec=spec,
        details={
            "opset": opset_of(model),
            "ir_version": model.ir_version,
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            "doc": model.doc_string,
            "nodes": len(model.graph.node),
            "ops": dict(_ops(model).most_common()),
            "metadata": {entry.key: entry.value for entry in model.metadata_props},
        },
        notes=tuple(notes),
        next=_next(kind, model, file),
    )


def _read(file: Path) -> _Read:
    if file.stat().st_size > MAX_BYTES:
        raise DataError(f"Expected an ONNX of at most 2 GiB, but '{file}' is larger: no ONNX file can be.")
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except Exception as error:  # protobuf has exceptions of its own
        raise DataError(
            f"Expected an ONNX model, but '{file}' is no ONNX file, or cut short. Copy or download it again."
        ) from error
    if not model.graph.node:
        raise DataError(f"Expected an ONNX model, but '{file}' holds no network. Export it again.")
    outside, other_files = _forget_data_outside(model)
    check_parts(model, file)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
        check_parts(model, file)
    return _Read(model, outside, other_files)


def _forget_data_outside(model: onnx.ModelProto) -> tuple[frozenset[str], tuple[str, ...]]:
    """Let inputs stand for weights in other files, which are not opened: shapes are all that is looked at."""
    outside: list[onnx.TensorProto] = []
    kept: list[onnx.TensorProto] = []
    for tensor in model.graph.initializer:
        elsewhere = tensor.data_location == onnx.TensorProto.EXTERNAL and len(tensor.dims) <= MAX_RANK
        (outside if elsewhere else kept).append(tensor)
    if not outside:
        return frozenset(), ()
    files = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    shown = {value.name for value in model.graph.input}
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, [max(side, 0) for side in tensor.dims])
        for tensor in outside
        if tensor.name not in shown
    )
    names, inside = frozenset(tensor.name for tensor in outside), [tensor.SerializeToString() for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(map(onnx.TensorProto.FromString, inside))
    return names, tuple(sorted(files))


def _spec(model: onnx.ModelProto, notes: list[str]) -> ModelSpec | None:
    text = metadata(model)
    try:
        return ModelSpec.from_json(text) if text else None
    except DataError as error:
        notes.append(str(error))
        return None


def _kind(model: onnx.ModelProto, spec: ModelSpec | None) -> str:
    names = {output.name for output in model.graph.output}
    if spec is not None and (spec.kind == "deployable") == (names >= DEPLOYABLE):
        return f"{spec.kind}-onnx"
    if names >= DEPLOYABLE:
        return "deployable-onnx"
    kind = kind_of(read_traits(model.graph, {}))
    return "trunk-onnx" if kind is TRUNK else "tail-onnx" if kind is TAIL else "onnx"


def _heads(file: Path) -> tuple[RawHead, tuple[PartRow, ...]] | None:
    """What surgery would read: the heads of a file of any exporter, and the parts by their places."""
    try:
        graph, _ = read_graph(load_raw(file), file)
        head = find_raw_head(graph)
    except DataError:
        return None
    name_parts(graph, head)
    return head, graph_part_rows(graph)


def _parts(model: onnx.ModelProto, kind: str, notes: list[str]) -> tuple[PartRow, ...]:
    if fix_batch(model):
        notes.append("The batch is open: multiply-adds are those of one image.")
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    try:
        rows = part_rows(model)
    except DataError as error:
        notes.append(f"Multiply-adds cannot be counted. {error}")
        return ()
    missing = len(layers) - sum(sum(row.layers.values()) for row in rows)
    if missing:
        notes.append(f"{missing} of {len(layers)} convolutions and products are not counted: their shapes are open.")
    told = kind != "onnx" or (
        any(node.op_type == "RoiAlign" for node in model.graph.node)
        and all(part_of(node.name, list(node.input)) for node in layers)
    )
    return rows if told or not rows else (sum_of(rows, "network"),)


def _what_it_looks_like(model: onnx.ModelProto, file: Path) -> str:
    if sum(node.op_type == "RoiAlign" for node in model.graph.node) == 1:
        return (
            "It has one RoiAlign: if it is a whole BlendMask, surgery finds its blender and proves it by running it "
            f"({_operate(file)}); inspect runs nothing."
        )
    kind = kind_of(read_traits(model.graph, {}))
    looks = f"It looks like {kind.name} ({kind.known_by})" if kind is not None else "It is another network"
    return f"{looks}: no BlendMask, neither raw heads nor a whole one with RoiAlign."


def _facts(model: onnx.ModelProto) -> list[tuple[str, str]]:
    by = f"{model.producer_name} {model.producer_version}".strip()
    ops = _ops(model)
    listed = ", ".join(f"{count} {printable(op, _LONG)}" for op, count in ops.most_common(_SHOWN))
    facts = [
        ("made by", by or "who does not say"),
        ("format", f"opset {opset_of(model)}, IR {model.ir_version}, {len(model.graph.node):,} nodes"),
        ("operators", f"{listed}, and {len(ops) - _SHOWN} more" if len(ops) > _SHOWN else listed),
    ]
    if domains := sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"}):
        facts.append(("not standard", ", ".join(domains)))
    if model.doc_string:
        facts.append(("says", printable(model.doc_string, _LONGEST)))
    return facts


def _ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def _of_heads(head: RawHead) -> str:
    h, w = head.input_hw
    levels = "/".join(str(stride) for stride in head.strides)
    return (
        f"{h}x{w} (HxW), {len(head.levels)} levels of strides {levels}, K {head.num_bases}, M {head.attention_size}, "
        f"{head.num_classes} classes"
    )


def _precision(parts: tuple[PartRow, ...]) -> str:
    total = sum_of(parts)
    made = [p for p, macs in total.macs.items() if macs]
    shares = ", ".join(f"{total.share(p):.1%} {p}" for p in made) if len(made) > 1 else "".join(made)
    return f"{amount(total.total, '')} multiply-adds ({shares})".replace("  ", " ") if made else ""


def _inputs(read: _Read) -> tuple[TensorSpec, ...]:
    weights = read.outside | {tensor.name for tensor in read.model.graph.initializer}
    return _specs([value for value in read.model.graph.input if value.name not in weights])


def _specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(value.name, _dtype(value.type.tensor_type.elem_type), _shape(value)) for value in values)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)


def _dtype(code: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(code).name)
    except (KeyError, ValueError, TypeError):
        return f"type {code}"


def _weights(read: _Read) -> tuple[WeightRow, ...]:
    graph = read.model.graph
    kinds = [(_dtype(tensor.data_type), tuple(tensor.dims)) for tensor in graph.initializer]
    outside = (value for value in graph.input if value.name in read.outside)
    kinds += [(spec.dtype, spec.shape) for spec in _specs(list(outside))]
    values: Counter[str] = Counter()
    for dtype, dims in kinds:
        values[dtype] += math.prod(max(side, 0) for side in dims)
    stored = sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in graph.initializer)
    return (WeightRow("all", len(kinds), sum(values.values()), stored, dict(values.most_common())),) if kinds else ()


def _operate(file: Path) -> str:
    return f"trt-blendmask surgery {shlex.quote(str(file))} -o model.onnx"


def _next(kind: str, model: onnx.ModelProto, file: Path) -> str:
    whole = any(node.op_type == "RoiAlign" for node in model.graph.node)
    if kind == "raw-head-onnx" or (kind == "onnx" and whole):
        return _operate(file)
    return f"trt-blendmask build {shlex.quote(str(file))}" if kind == "deployable-onnx" else ""
