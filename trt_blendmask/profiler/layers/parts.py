"""Of which part of BlendMask a layer is, by the names in it: those of the model's nodes, however they were fused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from trt_blendmask.profiler.report import LayerProfile
from trt_blendmask.surgery.macs import PARTS, part_of

OTHER = "other"
_STAGE = re.compile(r"(stem|res[2-5]|level[0-5]|base_layer)(?![0-9])")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")  # TensorRT's Metadata
# What stands around the names of nodes in a layer's name: "a + b", "PWN(a, b)", "{ForeignNode[a...b]}", "a || b".
_BETWEEN = re.compile(r"\.\.\.|[\s,+|()\[\]{}\x1e\x1f]+")
_ADDED = (  # by ONNX Runtime and TensorRT to the names of nodes
    re.compile(r"^(InsertedPrecisionFreeCast_|FusedBack_)+"),
    re.compile(r"(_nchwc|_token_\d+|/duplicated|/MatmulTransposeFusion/|_clone_?\d*)+$"),
    re.compile(r"(_U\d+)?(_myl\d+_\d+)$"),
)


def fine_part(name: str, inputs: Iterable[str] = ()) -> str:
    """The part that the name of a node, or else that of its weights, tells; "" if nothing does.

    Those of `surgery.macs.PARTS`, finer where names tell: "backbone.res2", "selection.nms".
    """
    given = list(inputs)
    part = part_of(name, given)
    if part == "backbone":
        stage = _STAGE.search(name) or next((found for each in given[1:2] if (found := _STAGE.search(each))), None)
        return f"backbone.{stage[1]}" if stage else part
    if part == "selection":
        if name.startswith("images."):  # to float, planes and normalised, for the backbone
            return "backbone.images"
        return "selection.nms" if name.startswith("nms.") else "selection.decode"
    return part


def plain_name(name: str) -> str:
    """The name of a node without what ONNX Runtime or TensorRT added to it."""
    for added in _ADDED:
        name = added.sub("", name)
    return name


def names_in(layer: str, metadata: str = "") -> list[str]:
    """Names, in their order, that a layer of TensorRT is made of: of its Metadata, or else those in its name."""
    found = _ONNX_LAYER.findall(metadata) or [plain_name(name) for name in _BETWEEN.split(layer)]
    return [name for name in dict.fromkeys(found) if name]


def part_of_names(names: Iterable[str], macs: Mapping[str, int]) -> str:
    """The part that most multiply-adds of the nodes `names` are of, else the most names, else "".

    Args:
        macs: of the model's nodes, by name.
    """
    work: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for name in names:
        if part := fine_part(name):
            work[part] += macs.get(name, 0)
            count[part] += 1
    return max(count, key=lambda part: (work[part], count[part]), default="")


def by_part(profile: LayerProfile) -> dict[str, float]:
    """Milliseconds of each part that has layers, in the order of `all_parts`."""
    return {part: sum(layer.ms for layer in profile.layers if layer.part == part) for part in all_parts([profile])}


def all_parts(profiles: Sequence[LayerProfile]) -> list[str]:
    """The parts that have layers, in the order of computation."""
    seen = dict.fromkeys(layer.part for profile in profiles for layer in profile.layers)
    order = {part: k for k, part in enumerate(PARTS)}
    return sorted(seen, key=lambda part: order.get(part.partition(".")[0], len(order)))
