"""Outputs that were renamed, told by what they are: shapes, what they come from, and weights shared by all levels.

`bbox_reg` has 4 channels and ends in Relu; `centerness` (1 channel) and `top_feats` (K*M*M) come from the tower of
`bbox_reg`; the rest of a level is `logits`; `bases` are the output that is no level's. Names decide where they say
something. What stays open is refused: guessing wrong would give masks that look almost right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.reading.ends import PARTS, Ends, contract_name

_SAID = tuple(
    (re.compile(pattern, re.IGNORECASE), part)
    for pattern, part in (
        (r"top_?(feats?|layer)|attn|attention", "top_feats"),
        (r"ctr_?ness|center_?ness|centre_?ness", "centerness"),
        (r"bbox_?(reg|pred)", "bbox_reg"),
        (r"cls_?(logits|score)|logits", "logits"),
    )
)
MOST_OUTPUTS = 100  # no head has so many, and what follows tries all of them
_RECTIFIED, _CONVOLVED, _EXPONENTIAL, _OTHER = "rectified", "convolved", "exponential", "other"


@dataclass(frozen=True, eq=False)
class _End:
    """An output [N, C, h, w], what it ends in, and the convolution that it comes from."""

    tensor: gs.Variable
    kind: str
    conv: gs.Node | None

    @property
    def channels(self) -> int:
        return int(self.tensor.shape[1])

    @property
    def hw(self) -> tuple[int, int]:
        return int(self.tensor.shape[2]), int(self.tensor.shape[3])

    @property
    def tower(self) -> int:
        return id(self.conv.inputs[0]) if self.conv is not None else 0

    @property
    def weight(self) -> int:
        return id(self.conv.inputs[1]) if self.conv is not None else 0

    def said(self) -> str:
        """The part that names of the output, of its convolution or of the weights tell; empty: none."""
        names = [self.tensor.name]
        if self.conv is not None:
            names += [self.conv.name, self.conv.inputs[1].name]
        found = (part for name in names for pattern, part in _SAID if pattern.search(name))
        return next(found, "")


_Level = dict[str, _End]  # part -> output
_Solution = tuple[_End, tuple[_Level, ...]]  # bases, and the levels from the finest on


def recognise(graph: gs.Graph) -> Ends | None:
    """Bind the outputs of `graph` by shape and structure; None if they are not those of a raw-head BlendMask.

    Raises:
        DataError: it is one, but two outputs could change places, or boxes are exponentials.
    """
    if len(graph.outputs) > MOST_OUTPUTS:
        return None
    ends = [_end(tensor) for tensor in graph.outputs if _is_map(tensor)]
    if len(ends) % 4 != 1:  # feature maps among the outputs: something else reads them
        ends = [end for end in ends if not end.tensor.outputs]
    solutions = [s for bases in ends for s in _solve(bases, [end for end in ends if end is not bases])]
    solutions = _that_names_allow(solutions)
    if not solutions:
        _refuse_exponential(ends)
        return None
    if len(solutions) > 1:
        _refuse_ambiguous(solutions[0], solutions[1])
    bases, levels = solutions[0]
    numbers = [_number(level, 3 + index) for index, level in enumerate(levels)]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(3, 3 + len(levels)))
    return Ends(bases.tensor, {n: {p: e.tensor for p, e in level.items()} for n, level in zip(numbers, levels)})  # noqa: B905


def _is_map(tensor: gs.Tensor) -> bool:
    shape = tensor.shape
    known = shape is not None and len(shape) == 4 and all(isinstance(n, int) and n > 0 for n in shape)
    return isinstance(tensor, gs.Variable) and known and tensor.dtype == np.float32


def _end(tensor: gs.Variable) -> _End:
    kind, node = _CONVOLVED, _maker(tensor)
    if node is not None and node.op == "Sigmoid":
        node = _maker(node.inputs[0])
    elif node is not None and node.op == "Mul":  # box distances in pixels
        node = next((maker for x in node.inputs if (maker := _maker(x)) is not None and maker.op == "Relu"), node)
    if node is not None and node.op in ("Relu", "Clip", "Max"):
        kind, node = _RECTIFIED, _maker(node.inputs[0])
    elif node is not None and node.op == "Exp":
        kind, node = _EXPONENTIAL, _maker(node.inputs[0])
    while node is not None and node.op in ("Mul", "Add"):  # a learned scale, or a bias apart
        variables = [x for x in node.inputs if isinstance(x, gs.Variable)]
        node = _maker(variables[0]) if len(variables) == 1 else None
    if node is None or node.op != "Conv":
        return _End(tensor, _OTHER, None)
    return _End(tensor, kind, node)


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs else None


def _solve(bases: _End, others: list[_End]) -> Iterator[_Solution]:
    """All ways in which `others` can be levels of four parts each, given the bases."""
    sizes: dict[tuple[int, int], list[_End]] = {}
    for end in others:
        sizes.setdefault(end.hw, []).append(end)
    if bases.kind != _CONVOLVED or not sizes or any(len(level) != 4 for level in sizes.values()):
        return
    finest_first = sorted(sizes, reverse=True)
    if bases.hw < finest_first[0]:
        return
    ways = [list(_ways(sizes[hw], bases.channels)) for hw in finest_first]
    shared = [end.weight for end in others]
    for levels in product(*ways) if math.prod(map(len, ways)) <= 1 << 12 else ():
        signatures = {tuple(_signature(level[part], part, shared) for part in PARTS) for level in levels}
        if len(signatures) == 1:
            yield bases, levels


def _ways(level: list[_End], num_bases: int) -> Iterator[_Level]:
    for ends in permutations(level):
        way = dict(zip(PARTS, ends, strict=True))
        box, centerness, top = way["bbox_reg"], way["centerness"], way["top_feats"]
        if box.kind != _RECTIFIED or box.channels != 4 or {end.kind for end in ends if end is not box} != {_CONVOLVED}:
            continue
        if centerness.tower == top.tower == box.tower and centerness.channels == 1:
            per_base, rest = divmod(top.channels, num_bases)
            if not rest and math.isqrt(per_base) ** 2 == per_base:
                yield way


def _signature(end: _End, part: str, weights: list[int]) -> tuple[int, int]:
    """What is the same on all levels: channels, and the weights unless each level has its own (a scale folded in)."""
    shared = part != "bbox_reg" and weights.count(end.weight) > 1
    return end.channels, end.weight if shared else 0


def _that_names_allow(solutions: list[_Solution]) -> list[_Solution]:
    """Names of the contract must hold; other names decide between what is left."""
    fit = [s for s in solutions if all(_agrees(end, part) for end, part in _assigned(s))]
    said = [s for s in fit if all(end.said() in ("", part) for end, part in _assigned(s) if part != "bases")]
    return said if len(fit) > 1 and said else fit


def _assigned(solution: _Solution) -> Iterator[tuple[_End, str]]:
    bases, levels = solution
    yield bases, "bases"
    for level in levels:
        yield from ((end, part) for part, end in level.items())


def _agrees(end: _End, part: str) -> bool:
    number, said = contract_name(end.tensor.name)
    return said in ("", part) and (part != "bases" or number == 0)


def _number(level: _Level, otherwise: int) -> int:
    said = {contract_name(end.tensor.name)[0] for end in level.values()} - {0}
    return said.pop() if len(said) == 1 else otherwise


def _refuse_ambiguous(one: _Solution, other: _Solution) -> None:
    meant = {id(end): part for end, part in _assigned(one)}
    changed = [(end, part) for end, part in _assigned(other) if meant[id(end)] != part]
    first, part = changed[0]
    second = next(end for end, _ in changed if meant[id(end)] == part)
    names, roles = f"'{first.tensor.name}' and '{second.tensor.name}'", f"{meant[id(first)]} or {part}"
    raise DataError(
        f"Expected outputs that can be told apart, but {names} could each be {roles}: same shape, same kind of layer. "
        "Name the outputs as AdelaiDet's export_model_to_onnx.py does: bases, P3logits, P3bbox_reg, P3centerness, "
        "P3top_feats ..."
    )


def _refuse_exponential(ends: list[_End]) -> None:
    for end in ends:
        if end.kind == _EXPONENTIAL and end.channels == 4:
            raise DataError(
                f"Expected box distances that end in Relu, as BlendMask's do, but '{end.tensor.name}' ends in Exp: the "
                "head of another FCOS. Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
            )
