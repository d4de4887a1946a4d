"""TensorRT's engine inspector: its JSON, of 10.x ("Bindings", "Format/Datatype") and of 11.x and TensorRT-RTX
("I/O Tensors", "Format" and "Datatype"), with or without details. What is not known here is passed over.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trt_blendmask.errors import DataError
from trt_blendmask.profiler.layers.parts import OTHER, names_in, part_of_names
from trt_blendmask.profiler.plain import plain_of
from trt_blendmask.profiler.report import Layer

_TYPES = (  # TensorRT's words for a type, the first that is found -> ours, bytes of one element
    (r"bfloat16|bf16", "BF16", 2.0),
    (r"float8|fp8", "FP8", 1.0),
    (r"fp4|float4", "FP4", 0.5),
    (r"fp16|half|float16", "FP16", 2.0),
    (r"fp32|float", "FP32", 4.0),
    (r"uint8", "UINT8", 1.0),
    (r"int8", "INT8", 1.0),
    (r"int64", "INT64", 8.0),
    (r"int32", "INT32", 4.0),
    (r"int4", "INT4", 0.5),
    (r"bool", "BOOL", 1.0),
)
_PRODUCT = re.compile(r"conv|correlation|gemm|matrix_?multiply|matmul|fully_?connected", re.I)
_FUSED_PRODUCT = re.compile(r"^__myl_([A-Z][a-z]+)*?(Corr|Gemm|Matm|Fc)(?![a-z])")
_CONVOLUTION = re.compile(r"conv|corr", re.I)
_REFORMAT = re.compile(r"^(reformat|cast|identity|copy|move|dequantize|quantize|scale_qdq)$", re.I)
# Kernels that it writes of nothing but these; rounded between two bounds is how it quantises.
_COPIES = re.compile(r"^__myl_(Cast|Move|Tran|Resh|Copy|(Mul|Div)MinMaxRoun)+_")
_REFORMATTING = re.compile(r"^(Reformatting CopyNode for|copied_squeeze_after|.*\(Output Reformat)", re.I)


Timed = tuple[str, float, float]  # name of a layer, mean milliseconds of a run, their standard error or 0
_MOST_SIDES = 8  # as TensorRT has them
OURS = "trt_blendmask"  # a field of the files that we write, with what TensorRT does not tell
OUR_FIELDS = {"part": str, "precision": str, "macs": int, "bytes": int, "is_reformat": bool}


@dataclass(frozen=True)
class Tensor:
    """One end of a layer; `type` as "FP16", `size` in bytes of one element, 0 unknown."""

    name: str
    shape: tuple[int, ...]
    type: str
    size: float

    @property
    def bytes(self) -> int:
        """0 where the type or a side is unknown."""
        return int(math.prod(self.shape) * self.size) if min(self.shape, default=1) > 0 else 0


@dataclass(frozen=True)
class LayerInfo:
    """What the inspector says of one layer; with names only, `op` and more are empty."""

    name: str
    op: str
    names: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    kernel: str
    raw: Mapping[str, Any]

    @property
    def is_product(self) -> bool:
        """Whether it multiplies: a convolution or a matrix product, with what was fused into it."""
        kinds = (self.op, str(self.raw.get("ParameterType", "")))
        return any(map(_PRODUCT.search, kinds)) or _FUSED_PRODUCT.search(self.name) is not None

    @property
    def is_reformat(self) -> bool:
        """Whether it only converts layout or type, or copies."""
        return any((_REFORMAT.match(self.op), _COPIES.match(self.name), _REFORMATTING.match(self.name)))


def layer_infos(text: str | bytes) -> list[LayerInfo]:
    """The layers of an engine, in its order.

    Args:
        text: of `IEngineInspector.get_engine_information(JSON)` or trtexec's --exportLayerInfo.

    Raises:
        DataError: it is something else.
    """
    try:
        values = plain_of(text)
    except ValueError as error:
        raise DataError(f"Expected the JSON of TensorRT's engine inspector, but it is not JSON: {error}.") from error
    return infos_of(values)


def infos_of(values: object) -> list[LayerInfo]:
    """The same of what the JSON holds."""
    layers = values.get("Layers") if isinstance(values, dict) else None
    if not isinstance(layers, list):
        raise DataError("Expected the layers of an engine, as its inspector or trtexec --exportLayerInfo lists them.")
    return [_info(layer if isinstance(layer, dict) else {"Name": layer}) for layer in layers]


def layers_of(infos: Sequence[LayerInfo], times: Sequence[Timed], macs: Mapping[str, int] | None = None) -> list[Layer]:
    """What is known of each layer that ran, in the order of `times`.

    Args:
        times: of the layers, with names as the profiler gives them.
        macs: multiply-adds of the nodes of the ONNX that the engine was built from, by name; else by the shapes.
    """
    known: defaultdict[str, deque[LayerInfo]] = defaultdict(deque)
    for info in infos:
        known[info.name].append(info)
    ran = [known[name].popleft() if known[name] else _info({"Name": name}) for name, _, _ in times]
    work = _work(ran, macs)
    parts = _parts(infos, macs or {})
    layers = [
        Layer(
            name=info.name,
            part=parts.get(info.name) or part_of_names(info.names, macs or {}) or OTHER,
            op=info.op,
            precision=_precision(info),
            shape=info.outputs[0].shape if info.outputs else (),
            macs=multiplied,
            bytes=sum(tensor.bytes for tensor in (*info.inputs, *info.outputs, *info.constants)),
            ms=ms,
            share=0.0,
            is_reformat=info.is_reformat,
            kernel=info.kernel,
            error_ms=error,
        )
        for info, (_, ms, error), multiplied in zip(ran, times, work, strict=True)
    ]
    return [replace(layer, **_written(info)) for layer, info in zip(layers, ran, strict=True)]


def _written(info: LayerInfo) -> dict[str, Any]:
    """Fields of ours, where the file has them."""
    ours = info.raw.get(OURS)
    return (
        {key: ours[key] for key, kind in OUR_FIELDS.items() if type(ours.get(key)) is kind}
        if isinstance(ours, dict)
        else {}
    )


def _info(layer: Mapping[str, Any]) -> LayerInfo:
    name, metadata = str(layer.get("Name", "")), layer.get("Metadata")
    return LayerInfo(
        name=name,
        op=str(layer.get("LayerType", "")),
        names=tuple(names_in(name, metadata if isinstance(metadata, str) else "")),
        inputs=tensors_of(layer.get("Inputs")),
        outputs=tensors_of(layer.get("Outputs")),
        constants=(*tensors_of(layer.get("Constants")), *_weights(layer)),
        kernel=str(layer.get("TacticName") or layer.get("TacticValue") or ""),
        raw=layer,
    )


def tensors_of(values: object) -> tuple[Tensor, ...]:
    """The tensors of a list of inputs, of outputs, or of the engine's ends."""
    rows = [row for row in values if isinstance(row, dict)] if isinstance(values, list) else []
    return tuple(Tensor(str(row.get("Name", "")), _shape(row.get("Dimensions")), *_type(row)) for row in rows)


def _type(row: Mapping[str, Any]) -> tuple[str, float]:
    words = next((row[key] for key in ("Datatype", "DataType", "Format/Datatype", "Type") if row.get(key)), "")
    found = ((name, size) for pattern, name, size in _TYPES if re.search(pattern, str(words), re.I))
    return next(found, ("", 0.0))


def _shape(values: object) -> tuple[int, ...]:
    whole = isinstance(values, list) and len(values) <= _MOST_SIDES and all(type(side) is int for side in values)
    return tuple(values) if whole else ()  # type: ignore[arg-type]


def _weights(layer: Mapping[str, Any]) -> list[Tensor]:
    """Those that 10.x lists by their count."""
    rows = [row for key in ("Weights", "Bias") if isinstance(row := layer.get(key), dict)]
    counts = [(row, row.get("Count")) for row in rows]
    return [Tensor("", (count,), *_type(row)) for row, count in counts if type(count) is int]


def _precision(info: LayerInfo) -> str:
    """The type that a product multiplies, or that another layer gives."""
    weights = _type(info.raw.get("Weights") or {})[0] if isinstance(info.raw.get("Weights"), dict) else ""
    ends = [tensor.type for tensor in (info.inputs if info.is_product else info.outputs)[:1]]
    return weights or next(filter(None, ends), "")


def _parts(infos: Sequence[LayerInfo], macs: Mapping[str, int]) -> dict[str, str]:
    """By name of a layer. A reformat is of what made its input; so is a layer whose names tell nothing."""
    parts: dict[str, str] = {}
    made_by: dict[str, str] = {}
    for info in infos:
        before = next((parts[made_by[one.name]] for one in info.inputs if parts.get(made_by.get(one.name, ""))), "")
        own = part_of_names(info.names, macs)
        parts[info.name] = (before or own) if info.is_reformat else (own or before)
        made_by.update({tensor.name: info.name for tensor in info.outputs})
    return parts


def _work(infos: Sequence[LayerInfo], macs: Mapping[str, int] | None) -> list[int]:
    """Multiply-adds of each layer. A node that several layers name is counted for the first that multiplies."""
    if macs is None:
        return [_work_by_shape(info) for info in infos]
    work = [0] * len(infos)
    left = dict(macs)
    for index in sorted(range(len(infos)), key=lambda index: not infos[index].is_product):
        work[index] = sum(left.pop(name, 0) for name in infos[index].names)
    return work


def _work_by_shape(info: LayerInfo) -> int:
    if not (info.is_product and info.inputs and info.outputs):
        return 0
    given, made = info.inputs[0].shape, info.outputs[0].shape
    if min((*given, *made), default=0) <= 0:
        return 0
    kernel, groups = _shape(info.raw.get("Kernel")), info.raw.get("Groups", 1)
    if kernel and len(given) > 1 and type(groups) is int and groups > 0:
        return math.prod(made) * math.prod(kernel) * given[1] // groups
    fixed = [tensor.shape for tensor in info.constants if len(tensor.shape) > 1]  # the others may be what is added
    weights = max(fixed or [tensor.shape for tensor in info.inputs[1:]], key=math.prod, default=())
    if min(weights, default=0) <= 0:
        return 0
    if len(weights) == len(made) > 2 and _CONVOLUTION.search(f"{info.op} {info.name}"):
        return math.prod(made) * math.prod(weights[1:])
    # A product of [M, K] and [K, N], whichever way round each of them lies: K * K = (M * K) * (K * N) / (M * N).
    # Of a batch on both sides, its size is left over.
    leading = zip(given[-3::-1], weights[-3::-1], made[-3::-1], strict=False)
    batch = math.prod(min(a, b) for a, b, both in leading if max(a, b) == both)
    return math.prod(made) * math.isqrt(math.prod(given) * math.prod(weights) // (math.prod(made) * batch))
