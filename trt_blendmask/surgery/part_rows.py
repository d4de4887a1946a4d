"""What a graph is made of: layers, operators and multiply-adds of each part of BlendMask, by precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from trt_blendmask.surgery.macs import PARTS, inferred, macs_by_node, macs_of, part_of

PRECISIONS = ("INT8", "FP16", "FP32")  # the ones that we write; others of foreign files are told as well
_OF_TYPE = {
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.DOUBLE: "FP64",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.FLOAT8E5M2: "FP8",
    TensorProto.INT4: "INT4",
    TensorProto.UINT4: "INT4",
}
Layer = tuple[str, str, str, int]  # part, precision, operator, multiply-adds
_INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class PartRow:
    """One part of BlendMask (`surgery.macs.PARTS`): its convolutions and products.

    Attributes:
        layers, macs: how many there are, and their multiply-adds of one run, by precision.
        ops: how many there are, by operator.
    """

    part: str
    layers: dict[str, int]
    macs: dict[str, int]
    ops: dict[str, int]

    @property
    def total(self) -> int:
        """Multiply-adds in all precisions."""
        return sum(self.macs.values())

    def share(self, precision: str) -> float:
        """Of its multiply-adds; 0 where it has none."""
        return self.macs.get(precision, 0) / max(1, self.total)


def part_rows(model: onnx.ModelProto) -> tuple[PartRow, ...]:
    """The parts that have layers, in the order of `PARTS`. INT8 is a layer whose input and weights are dequantised.

    Raises:
        DataError: shapes that contradict one another.
    """
    types = _element_types(model)
    made_by = {name: node for node in model.graph.node for name in node.output}
    layers = [(part, _precision(node, made_by, types), node.op_type, macs) for node, part, macs in macs_by_node(model)]
    return _rows(layers)


def graph_part_rows(graph: gs.Graph) -> tuple[PartRow, ...]:
    """The same of a float32 graph whose nodes have names that tell their part."""
    layers = [(part_of(node.name, []), "FP32", node.op, macs) for node in graph.nodes if (macs := macs_of(node))]
    return _rows(layers)


def sum_of(rows: Iterable[PartRow], name: str = "all") -> PartRow:
    """Several parts as one row."""
    total = PartRow(name, *(Counter(dict.fromkeys(keys, 0)) for keys in (PRECISIONS, PRECISIONS, ())))
    for row in rows:
        for sums, counts in ((total.layers, row.layers), (total.macs, row.macs), (total.ops, row.ops)):
            sums.update(counts)  # a Counter's adds
    return PartRow(name, dict(total.layers), dict(total.macs), dict(total.ops))


def table(rows: Sequence[PartRow]) -> list[str]:
    """The rows and their sum as lines of at most 80 characters; a column for each precision that occurs."""
    total = sum_of(rows)
    precisions = [p for p, count in total.layers.items() if count]
    heads = "".join(f"{precision:>7}" for precision in precisions)
    lines = [f"{'part':11}{'layers':>6}{'multiply-adds':>15}{'share':>8}{heads}  types"]
    for row in (*rows, total) if len(rows) > 1 else rows:
        shares = "".join(f"{_percent(row.share(p)) if row.layers.get(p) else '-':>7}" for p in precisions)
        types = ", ".join(f"{count} {op}" for op, count in row.ops.items())
        lines.append(
            f"{row.part:11}{sum(row.layers.values()):6}{f'{row.total / 1e6:,.1f} M':>15}"
            f"{_percent(row.total / max(1, total.total)):>8}{shares}  {types}"
        )
    return lines


def _rows(layers: Sequence[Layer]) -> tuple[PartRow, ...]:
    each = [PartRow(part, {precision: 1}, {precision: macs}, {op: 1}) for part, precision, op, macs in layers]
    return tuple(sum_of(rows, part) for part in PARTS if (rows := [row for row in each if row.part == part]))


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _precision(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto], types: dict[str, int]) -> str:
    if node.op_type in _INTEGER_OPS:
        return "INT8"
    makers = [maker for name in node.input[:2] if (maker := made_by.get(name)) is not None]
    if len(makers) == 2 and all(maker.op_type == "DequantizeLinear" for maker in makers):
        stored = types.get(makers[1].input[0], 0) if makers[1].input else 0
        return _OF_TYPE.get(stored, "INT8")
    return _OF_TYPE.get(types.get(node.output[0], 0) if node.output else 0, "FP32")


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = inferred(model)
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return types | {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
