"""Find and check the raw-head contract: `bases` and, per level, logits, box regression, centerness and top features.

Outputs are bound by name (AdelaiDet's exporter and old TensorRT engines list them in different orders), and those that
were renamed by what they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.reading.behind_heads import check_end, said, take_off
from trt_blendmask.surgery.reading.ends import PARTS, by_name, contract_name, rename
from trt_blendmask.surgery.reading.recognise import recognise

DEPLOYABLE = {"count", "boxes", "scores", "classes", "masks"}
EXPORT = "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"


class HeadsMissingError(DataError):
    """The outputs are not those of a raw-head BlendMask."""


@dataclass(frozen=True)
class HeadLevel:
    """One level: tensors float32 [N, C | 4 | 1 | K*M*M, h, w]; `stride` in input pixels."""

    number: int
    stride: int
    hw: tuple[int, int]
    logits: gs.Variable
    bbox_reg: gs.Variable
    centerness: gs.Variable
    top_feats: gs.Variable

    @property
    def locations(self) -> int:
        return self.hw[0] * self.hw[1]


@dataclass(frozen=True)
class RawHead:
    """The ends of a raw-head graph: `images` float32 [N, 3, H, W] normalised BGR, `bases` float32 [N, K, H/4, W/4].

    `recognised` says which outputs had other names, and what was taken off them; empty: nothing.
    """

    images: gs.Variable
    bases: gs.Variable
    levels: tuple[HeadLevel, ...]
    recognised: str = ""

    @property
    def batch(self) -> int:
        return int(self.bases.shape[0])

    @property
    def num_bases(self) -> int:
        return int(self.bases.shape[1])

    @property
    def bases_hw(self) -> tuple[int, int]:
        return int(self.bases.shape[2]), int(self.bases.shape[3])

    @property
    def input_hw(self) -> tuple[int, int]:
        return int(self.images.shape[2]), int(self.images.shape[3])

    @property
    def num_classes(self) -> int:
        return int(self.levels[0].logits.shape[1])

    @property
    def attention_size(self) -> int:
        return math.isqrt(int(self.levels[0].top_feats.shape[1]) // self.num_bases)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(level.stride for level in self.levels)

    @property
    def locations(self) -> int:
        """L, of all levels together; numbered level by level, each row by row."""
        return sum(level.locations for level in self.levels)


def find_raw_head(graph: gs.Graph) -> RawHead:
    """Bind the raw-head inputs and outputs of `graph`, give renamed outputs their names, check that all fit together.

    What exporters put behind a head is taken off `graph`.

    Raises:
        DataError: an output is missing or could be two things, a shape is not static, or channels and sizes
            contradict one another.
    """
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    ends = by_name(outputs) or recognise(graph)
    if ends is None:
        raise _incomplete(outputs)
    renamed = ends.renamed()
    rename(graph, ends)
    images = _image_input(graph)
    for tensor in (images, ends.bases, *(tensor for parts in ends.levels.values() for tensor in parts.values())):
        _check_static(tensor)
    input_hw = (int(images.shape[2]), int(images.shape[3]))
    levels: list[HeadLevel] = []
    taken: list[tuple[str, str]] = []
    for number, parts in sorted(ends.levels.items()):
        hw = (int(parts["logits"].shape[2]), int(parts["logits"].shape[3]))
        stride = _stride(f"P{number}logits", hw, input_hw, levels[-1].stride if levels else 1)
        taken += take_off(graph, parts, stride)
        levels.append(HeadLevel(number, stride, hw, *(parts[part] for part in PARTS)))
    recognised = "; ".join(filter(None, (renamed, said(taken))))
    head = RawHead(images, ends.bases, tuple(levels), recognised)
    _check_channels(head)
    check_end(head.bases, "bases")
    for level in head.levels:
        for part in PARTS:
            check_end(getattr(level, part), part)
    return head


def _incomplete(outputs: dict[str, Any]) -> DataError:
    found: dict[int, set[str]] = {}
    for number, part in map(contract_name, outputs):
        if number:
            found.setdefault(number, set()).add(part)
    if outputs.keys() >= DEPLOYABLE and not found:
        return HeadsMissingError(
            "Expected a raw-head ONNX, but this one has boxes, scores, classes and masks already: it is a deployable "
            "ONNX. Type: trt-blendmask run MODEL SOURCE"
        )
    missing = [] if (0, "bases") in map(contract_name, outputs) else ["bases"]
    missing += [f"P{n}{part}" for n in sorted(found) for part in PARTS if part not in found[n]]
    if not found:
        missing.append("P3logits, P3bbox_reg, P3centerness, P3top_feats, P4logits ...")
    came = ", ".join(outputs) if len(outputs) <= 6 else ", ".join([*list(outputs)[:6], "..."])
    return HeadsMissingError(
        f"Expected a raw-head ONNX of BlendMask, but its outputs lack {', '.join(missing)}; it has {came}. {EXPORT}"
    )


def _image_input(graph: gs.Graph) -> gs.Variable:
    inputs = [tensor for tensor in graph.inputs if isinstance(tensor, gs.Variable) and tensor.outputs]
    shapes = ", ".join(f"'{t.name}' {t.shape}" for t in inputs) or "none"
    if len(inputs) != 1 or inputs[0].shape is None or len(inputs[0].shape) != 4:
        raise DataError(f"Expected one input, 'input_image' [N, 3, H, W], got {shapes}. {EXPORT}")
    image = inputs[0]
    if image.shape[1] != 3 or image.dtype != np.float32:
        raise DataError(f"Expected 'input_image' float32 [N, 3, H, W], got {image.dtype} {shapes}. {EXPORT}")
    return image


def _check_static(tensor: gs.Variable) -> None:
    shape = tensor.shape
    if shape is None or len(shape) != 4 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise DataError(
            f"Expected a static shape [N, C, H, W] of '{tensor.name}', got {shape}: an engine without allocations "
            f"needs fixed sizes. {EXPORT} --input-size HxW --batch N"
        )
    if tensor.dtype != np.float32:
        raise DataError(
            f"Expected float32 '{tensor.name}', got {tensor.dtype}: surgery comes before quantize. {EXPORT}"
        )


def _stride(name: str, hw: tuple[int, int], input_hw: tuple[int, int], above: int) -> int:
    """The power of two, larger than that of the level before, by which the input was divided (rounding up)."""
    stride = above * 2
    while stride <= 2 * max(above, *input_hw):  # the coarsest level may be one cell
        if all(-(-side // stride) == cells for side, cells in zip(input_hw, hw, strict=True)):
            return stride
        stride *= 2
    raise DataError(
        f"Expected '{name}' to be the input {list(input_hw)} by a power of two over {above}, got {list(hw)}. {EXPORT}"
    )


def _check_channels(head: RawHead) -> None:
    first = head.levels[0]
    expected = {"logits": head.num_classes, "bbox_reg": 4, "centerness": 1, "top_feats": first.top_feats.shape[1]}
    for level in head.levels:
        for part, channels in expected.items():
            shape = list(getattr(level, part).shape)
            wanted = [head.batch, channels, *level.hw]
            if shape != wanted:
                raise DataError(f"Expected 'P{level.number}{part}' {wanted}, got {shape}. {EXPORT}")
    if head.images.shape[0] != head.batch:
        raise DataError(f"Expected 'bases' for {head.images.shape[0]} images, got {head.batch}. {EXPORT}")
    if head.num_bases * head.attention_size**2 != expected["top_feats"]:
        raise DataError(
            f"Expected K*M*M channels in 'P{first.number}top_feats' with K = {head.num_bases} channels of 'bases', "
            f"got {expected['top_feats']}, which is no K times a square. {EXPORT}"
        )
    (bases_h, bases_w), (input_h, input_w) = head.bases_hw, head.input_hw
    if bases_h * input_w != bases_w * input_h:
        raise DataError(f"Expected 'bases' of the input's proportions {head.input_hw}, got {head.bases_hw}. {EXPORT}")
