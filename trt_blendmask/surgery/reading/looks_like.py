"""What a graph that is no BlendMask looks like: one rule per kind of network, tried in this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.reading.ends import contract_name
from trt_blendmask.surgery.reading.load import Loaded
from trt_blendmask.surgery.reading.merge_weights import Array
from trt_blendmask.surgery.reading.raw_head import DEPLOYABLE, EXPORT, HeadsMissingError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Traits:
    """What the rules look at: shapes of inputs and outputs (0: open), counts of ops, channels out of convolutions."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    ops: Counter[str]
    channels: Counter[int]

    @property
    def input_hw(self) -> tuple[int, int]:
        """Of the first picture; zeros where there is none."""
        for shape in self.inputs.values():
            if len(shape) == 4:
                return (shape[1], shape[2]) if shape[3] == 3 and shape[1] != 3 else (shape[2], shape[3])
        return 0, 0

    def of_rank(self, rank: int) -> list[Shape]:
        return [shape for shape in self.outputs.values() if len(shape) == rank]

    def levels(self) -> list[list[int]]:
        """Channels of the rank 4 outputs, by size of the map."""
        found: dict[Shape, list[int]] = {}
        for shape in self.of_rank(4):
            found.setdefault(shape[2:], []).append(shape[1])
        return list(found.values())


@dataclass(frozen=True)
class Kind:
    """A kind of network, the trait it is known by, and whether it is there."""

    name: str
    known_by: str
    fits: Callable[[Traits], bool]


def _anchors(traits: Traits) -> set[int]:
    """How many boxes a network with strides 8, 16, 32 (and 64) gives, one or three per cell."""
    h, w = traits.input_hw
    counts = [(h // s) * (w // s) for s in (8, 16, 32, 64)]
    return {each * sum(counts[:levels]) for each in (1, 3) for levels in (3, 4)} - {0}


def _is_yolo(traits: Traits) -> bool:
    dense = any(set(shape[1:]) & _anchors(traits) and min(shape[1:]) >= 5 for shape in traits.of_rank(3))
    grids = any(shape[1] == 3 and shape[-1] >= 6 for shape in traits.of_rank(5))
    few = any(shape[1:] in ((300, 6), (300, 38)) for shape in traits.of_rank(3))
    activated = min(traits.ops["Sigmoid"], traits.ops["Mul"]) >= 3 or traits.ops["LeakyRelu"] > 0
    return dense or grids or (few and activated)


def _is_yolo_seg(traits: Traits) -> bool:
    h, w = traits.input_hw
    maps = any(shape[1] == 32 and shape[2:] == (h // 4, w // 4) for shape in traits.of_rank(4))
    return maps and any(set(shape[1:]) & (_anchors(traits) | {300}) for shape in traits.of_rank(3))


def _is_yolact(traits: Traits) -> bool:
    coefficients = any(shape[-1] == 32 for shape in traits.of_rank(3))
    prototypes = any(shape[-1] == 32 or shape[1] == 32 for shape in traits.of_rank(4))
    boxes = any(shape[-1] == 4 for shape in traits.of_rank(3))
    return traits.ops["Tanh"] > 0 and coefficients and boxes and (prototypes or traits.channels[32] > 0)


def _is_solo(traits: Traits) -> bool:
    squares = {side * side for side in (40, 36, 24, 16, 12)}
    return len({shape[1] for shape in traits.of_rank(4)} & squares) >= 2


def _is_detr(traits: Traits) -> bool:
    queries = {shape[1] for shape in traits.of_rank(3) if shape[-1] == 4}
    return traits.ops["Softmax"] >= 3 and any(s[1] in queries and s[-1] != 4 for s in traits.of_rank(3))


def _is_fcos(traits: Traits) -> bool:
    levels = [channels for channels in traits.levels() if {1, 4} <= set(channels)]
    return len(levels) >= 3 and all(len(channels) <= 3 for channels in levels)


def _is_retinanet(traits: Traits) -> bool:
    levels = [c for c in traits.levels() if 36 in c and any(x != 36 and x % 9 == 0 for x in c)]
    return len(levels) >= 3


def _is_classifier(traits: Traits) -> bool:
    one = len(traits.outputs) == 1 and len(traits.of_rank(2)) == 1
    return one and traits.input_hw != (0, 0) and traits.ops["Gemm"] + traits.ops["MatMul"] > 0


def _is_segmentation(traits: Traits) -> bool:
    shapes, (h, w) = traits.of_rank(4), traits.input_hw
    return len(traits.outputs) == 1 and len(shapes) == 1 and h > 0 and 8 * shapes[0][2] >= h and 8 * shapes[0][3] >= w


TRUNK = Kind("the trunk that --split wrote", "bases and attention among its outputs",
             lambda t: t.outputs.keys() >= {"bases", "attention", "boxes"})  # fmt: skip
TAIL = Kind("the tail that --split wrote", "bases, boxes and attention go in, masks come out",
            lambda t: t.inputs.keys() >= {"bases", "attention", "boxes"} and t.outputs.keys() == {"masks"})  # fmt: skip
KINDS = (
    TRUNK,
    TAIL,
    Kind("Mask R-CNN or another two-stage detector", "several RoiAlign", lambda t: t.ops["RoiAlign"] > 1),
    Kind("CondInst", "a controller of 169 channels, the weights of its mask head",
         lambda t: t.channels[169] > 0 or any(169 in c for c in t.levels())),
    Kind("YOLACT", "tanh coefficients for 32 prototypes", _is_yolact),
    Kind("a YOLO with masks", "32 mask maps beside one table of boxes", _is_yolo_seg),
    Kind("a YOLO", "one table of boxes of strides 8, 16 and 32", _is_yolo),
    Kind("SOLO", "a mask channel for every cell of a grid", _is_solo),
    Kind("RetinaNet", "nine anchors per location", _is_retinanet),
    Kind("FCOS alone", "classes, distances and centerness, but no top features and no bases", _is_fcos),
    Kind("DETR", "tables of queries with attention before them", _is_detr),
    Kind("Mask R-CNN or another two-stage detector", "RoiAlign and suppression",
         lambda t: t.ops["RoiAlign"] > 0 and t.ops["NonMaxSuppression"] > 0),
    Kind("a classifier", "one row of scores per picture", _is_classifier),
    Kind("semantic segmentation", "one map of classes the size of the picture", _is_segmentation),
)  # fmt: skip


def not_blendmask(loaded: Loaded, path: Path, error: DataError) -> DataError:
    """The error to raise where neither heads nor a blend were found: `error` if that says more."""
    traits, plain = read_traits(loaded.model.graph, loaded.weights.arrays), DataError(str(error))
    if any(contract_name(name)[1] for name in traits.outputs) and "attention" not in traits.outputs:
        return plain
    if traits.outputs.keys() >= DEPLOYABLE:
        return plain
    if kind := kind_of(traits):
        return DataError(f"Expected a BlendMask, but '{path}' looks like {kind.name} ({kind.known_by}). {EXPORT}")
    if not isinstance(error, HeadsMissingError):
        return plain
    return DataError(
        f"Expected a BlendMask, its raw heads or a whole one with RoiAlign, but '{path}' is another network: inputs "
        f"{_listed(traits.inputs)}; outputs {_listed(traits.outputs)}. {EXPORT}"
    )


def kind_of(traits: Traits) -> Kind | None:
    """The first rule that fits."""
    return next((kind for kind in KINDS if kind.fits(traits)), None)


def read_traits(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> Traits:
    """What the rules look at; `weights` are those that lie beside the graph."""
    sizes = {name: array.shape for name, array in weights.items()}
    sizes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    weights_of = (name for node in graph.node if node.op_type == "Conv" for name in node.input[1:2])
    channels = Counter(sizes[name][0] for name in weights_of if sizes.get(name))
    inputs = {value.name: _shape(value) for value in graph.input if value.name not in sizes}
    outputs = {value.name: _shape(value) for value in graph.output}
    return Traits(inputs, outputs, Counter(node.op_type for node in graph.node), channels)


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(max(side.dim_value, 0) for side in value.type.tensor_type.shape.dim)


def _listed(shapes: dict[str, Shape]) -> str:
    words = [f"'{name}' [{', '.join(str(side or '?') for side in shape)}]" for name, shape in shapes.items()]
    return ", ".join([*words[:6], "..."] if len(words) > 6 else words) or "none"
