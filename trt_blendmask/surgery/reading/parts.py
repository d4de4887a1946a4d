"""Names for nodes that have none, and for convolutions which part of the network each belongs to."""

from __future__ import annotations

from collections import Counter

import onnx_graphsurgeon as gs

from trt_blendmask.surgery.macs import macs_of, part_of
from trt_blendmask.surgery.reading.raw_head import RawHead

_PREDICTORS = {"logits": "cls_logits", "bbox_reg": "bbox_pred", "centerness": "ctrness", "top_feats": "top_layer"}
_BASES = "bases"


def name_parts(graph: gs.Graph, head: RawHead) -> None:
    """Let every node have a name of its own, and those that multiply one that tells their part.

    Names that tell it stay. Else the weights' name is taken if it does, and else one in the manner of our exporter:
    "head.P3.cls_logits", "head.P3.tower.conv1", "basis.conv1", "fpn.conv1", "backbone.conv1".
    """
    predictors = _predictors(head)
    ends, pyramid = _ends(graph, head), _pyramid(graph)
    taken = {node.name for node in graph.nodes}
    numbers: Counter[str] = Counter()
    for node in graph.nodes:
        if not macs_of(node) or part_of(node.name, []):
            continue
        name = node.inputs[1].name.removesuffix(".weight")
        if not part_of(name, []):
            name = predictors.get(id(node), "")
        if not name:
            place = f"{_place(node, ends[id(node)], pyramid)}.conv"
            numbers[place] += 1
            name = f"{place}{numbers[place]}"
        node.name = _free(name, taken, numbers)
    named: set[str] = set()
    for node in graph.nodes:
        if not node.name or node.name in named:
            node.name = _free(node.outputs[0].name, taken, numbers)
        named.add(node.name)


def _free(name: str, taken: set[str], numbers: Counter[str]) -> str:
    free = name
    while free in taken:
        numbers[name] += 1
        free = f"{name}_{numbers[name] + 1}"
    taken.add(free)
    return free


def _predictors(head: RawHead) -> dict[int, str]:
    """The last convolution before each output of the head, by its id."""
    found = {}
    for level in head.levels:
        for part, name in _PREDICTORS.items():
            tensor = getattr(level, part)
            while tensor.inputs and not macs_of(tensor.inputs[0]):
                tensor = next((x for x in tensor.inputs[0].inputs if isinstance(x, gs.Variable)), gs.Variable.empty())
            if tensor.inputs:
                found[id(tensor.inputs[0])] = f"head.P{level.number}.{name}"
    return found


def _ends(graph: gs.Graph, head: RawHead) -> dict[int, frozenset[str]]:
    """What each node leads to: "bases" and levels such as "P3"."""
    leads: dict[int, set[str]] = {id(head.bases): {_BASES}}
    for level in head.levels:
        for part in _PREDICTORS:
            leads.setdefault(id(getattr(level, part)), set()).add(f"P{level.number}")
    ends = {}
    for node in reversed(graph.nodes):
        own: set[str] = set().union(*(leads.get(id(tensor), set()) for tensor in node.outputs))
        ends[id(node)] = frozenset(own)
        for tensor in node.inputs:
            leads.setdefault(id(tensor), set()).update(own)
    return ends


def _pyramid(graph: gs.Graph) -> set[int]:
    """The FPN's convolutions among those that lead to bases: laterals and outputs around the nearest enlargings."""
    found: set[int] = set()
    for resize in graph.nodes:
        if resize.op != "Resize" or resize.attrs.get("mode", "nearest") != "nearest":
            continue
        merged = [reader.outputs[0] for reader in resize.outputs[0].outputs if reader.op == "Add"]
        for tensor in (resize.inputs[0], *merged):
            makers = tensor.inputs[0].inputs if tensor.inputs and tensor.inputs[0].op == "Add" else [tensor]
            nodes = [node for maker in makers for node in maker.inputs]
            found.update(id(node) for node in (*nodes, *tensor.outputs) if node.op == "Conv")
    return found


def _place(node: gs.Node, ends: frozenset[str], pyramid: set[int]) -> str:
    if id(node) in pyramid:
        return "fpn"
    if ends == {_BASES}:
        return "basis"
    if _BASES in ends or not ends:
        return "backbone"
    if len(ends) > 1 or list(node.attrs.get("strides", [1, 1])) == [2, 2]:
        return "fpn"  # P6, which P7 is made of, or the last of the top levels
    return f"head.{min(ends)}.tower"
