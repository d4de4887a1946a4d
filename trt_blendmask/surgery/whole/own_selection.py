"""What a whole graph chooses by itself, and how far it can be kept.

A selection of fixed shapes is kept as it is. One that ends in a suppression (NonMaxSuppression) of a fixed number of
candidates is kept up to there. Any other is data dependent from the start: it gives way to ours, by its thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from trt_blendmask.surgery.reading.merge_weights import Array
from trt_blendmask.surgery.whole.core import Core
from trt_blendmask.surgery.whole.core_proof import LARGEST, run
from trt_blendmask.surgery.whole.inner_heads import InnerHeads
from trt_blendmask.surgery.whole.wiring import VIEWS, Wiring, attributes, cut_part, described

DATA_DEPENDENT = {"NonMaxSuppression", "NonZero", "If", "Loop", "Scan", "Unique", "Compress"}

_OTHER_ROWS = DATA_DEPENDENT | {"Gather", "GatherND", "GatherElements", "Slice", "TopK", "Concat", "ScatterND"}


@dataclass(frozen=True)
class OwnSelection:
    """The file's candidates, `count` of them: names of its tensors.

    Attributes:
        boxes: float32 [n, 4]. scores: float32, n. classes: integers, n. attention: float32, n times K*M*M.
        locations: integers, n, numbers of the locations of all levels; "" where it cannot be proven that they are.
        nms_boxes: float32 [n, 4] that suppression compares, "" where nothing is suppressed any more.
        nms_threshold: of its IoU. cap: how many may be left, `count` where the file does not say.
    """

    count: int
    boxes: str
    scores: str
    classes: str
    attention: str
    locations: str
    nms_boxes: str = ""
    nms_threshold: float = 0.0
    cap: int = 0


@dataclass(frozen=True)
class Thresholds:
    """What the constants of a data dependent selection say; None where none was found."""

    score_threshold: float | None = None
    thresh_with_ctr: bool | None = None
    nms_threshold: float | None = None
    cap: int | None = None


def find_own_selection(
    wiring: Wiring, core: Core, heads: InnerHeads, results: tuple[str, str] | None
) -> OwnSelection | None:
    """None where the file has to give way to our selection; `results` as `find_results` gives them."""
    if results is None:
        return None
    scores, classes = results
    if core.slots and not _depends_on_data(wiring, [core.boxes, core.attention, scores, classes]):
        locations = _locations(wiring, core.attention, heads)
        return OwnSelection(core.slots, core.boxes, scores, classes, core.attention, locations, cap=core.slots)
    return _candidates(wiring, core, heads, scores, classes)


def read_thresholds(wiring: Wiring, core: Core, heads: InnerHeads) -> Thresholds:
    """The constants of suppression and threshold between the heads and the core."""
    stop = set(heads.names.values())
    inside = wiring.before([core.boxes, core.attention], stop)
    nodes = wiring.makers(inside - stop)
    suppression = next((n for n in nodes if n.op_type == "NonMaxSuppression"), None)
    iou = None if suppression is None else _scalar(wiring, suppression, 3)
    cap = None if suppression is None else _cap(wiring, core, suppression)
    centerness = {tensor for name, tensor in heads.names.items() if name.endswith("centerness")}
    for node in nodes:
        if node.op_type not in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
            continue
        flip = node.op_type.startswith("Less")
        value, tested = _scalar(wiring, node, 0 if flip else 1), node.input[1 if flip else 0]
        if value is None or not any(
            n.op_type == "NonZero" for n in nodes if wiring.before(n.input, stop) & set(node.output)
        ):
            continue
        source = wiring.producer(wiring.unviewed(tested))
        if source is not None and source.op_type == "Sqrt":
            value *= value
        if node.op_type.endswith("OrEqual"):
            value = float(np.nextafter(np.float32(value), np.float32(0)))
        return Thresholds(value, bool(wiring.before([tested], stop) & centerness), iou, cap)
    return Thresholds(None, None, iou, cap)


def find_results(wiring: Wiring, core: Core) -> tuple[str, str] | None:
    """The outputs with one number per box: floats are scores, integers classes.

    None where they cannot be told, or where the masks are put in another order: rows would not be those of the core.
    """
    masks = wiring.after(core.masks) | {core.masks}
    if any(node.op_type in _OTHER_ROWS for node in wiring.makers(masks - {core.masks})):
        return None
    scores, classes = [], []
    for value in wiring.model.graph.output:
        kind, shape = value.type.tensor_type.elem_type, wiring.shape(value.name) or ()
        if value.name in masks or value.name == core.boxes or sum(side != 1 for side in shape) > 1:
            continue
        if kind == onnx.TensorProto.FLOAT:
            scores.append(value.name)
        elif kind in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            classes.append(value.name)
    classes = [x for x in classes if core.slots == 0 or (wiring.shape(x) or (0,))[-1] in (core.slots, 0)]
    return (scores[0], classes[0]) if len(scores) == 1 and len(classes) == 1 else None


def _depends_on_data(wiring: Wiring, names: list[str]) -> bool:
    nodes = wiring.makers(wiring.before(names) - set(wiring.constants))
    return any(
        n.op_type in DATA_DEPENDENT or (n.op_type == "TopK" and n.input[1] not in wiring.constants) for n in nodes
    )


def _candidates(wiring: Wiring, core: Core, heads: InnerHeads, scores: str, classes: str) -> OwnSelection | None:
    picked = [_picked(wiring, name) for name in (core.boxes, scores, classes, core.attention)]
    if any(p is None for p in picked) or len({p[1] for p in picked if p}) != 1:
        return None
    (boxes, index), *rest = [p for p in picked if p]
    scores, classes, attention = (source for source, _ in rest)
    kept = _suppression(wiring, index)
    if kept is None:
        return None
    node, cap = kept
    nms_boxes, nms_scores = (wiring.unviewed(name) for name in node.input[:2])
    threshold = _scalar(wiring, node, 3)
    count = (wiring.shape(nms_boxes) or (0,))[-2:][0]
    if (
        not count
        or threshold is None
        or nms_scores != wiring.unviewed(scores)
        or (_scalar(wiring, node, 4) or 0) > 0
        or attributes(node).get("center_point_box", 0)
        or _depends_on_data(wiring, [boxes, scores, classes, attention, nms_boxes])
    ):
        return None
    locations = _locations(wiring, attention, heads)
    most = min(cap or count, _scalar(wiring, node, 2) or count, count)
    return OwnSelection(count, boxes, scores, classes, attention, locations, nms_boxes, threshold, int(most))


def _picked(wiring: Wiring, name: str) -> tuple[str, str] | None:
    """(source, index) of a gathering of rows."""
    node = wiring.producer(wiring.unviewed(name))
    if node is None or node.op_type not in ("Gather", "GatherND"):
        return None
    values = attributes(node)
    if values.get("axis", 0) != 0 or values.get("batch_dims", 0) != 0 or node.input[1] in wiring.constants:
        return None
    if node.op_type == "GatherND" and (wiring.shape(node.input[1]) or (0,))[-1] != 1:
        return None
    return node.input[0], wiring.unviewed(node.input[1])


def _suppression(wiring: Wiring, index: str) -> tuple[onnx.NodeProto, int] | None:
    """The NonMaxSuppression that `index` is the last column of, and how many rows are left of it (0: all)."""
    cap = 0
    node = wiring.producer(index)
    while node is not None and node.op_type != "NonMaxSuppression":
        if node.op_type == "Slice":
            rows = _first_rows(wiring, node)
            cap = min(cap or rows, rows) if rows else cap
            if rows == 0 and not _column(wiring, node):
                return None
        elif node.op_type not in VIEWS and not (node.op_type == "Gather" and attributes(node).get("axis", 0) == 1):
            return None
        node = wiring.producer(node.input[0])
    return None if node is None else (node, cap)


def _first_rows(wiring: Wiring, node: onnx.NodeProto) -> int:
    """E of x[:E], 0 for any other slice."""
    start, end, axis, step = (_scalar(wiring, node, i) for i in (1, 2, 3, 4))
    first = start == 0 and (axis or 0) == 0 and (step is None or step == 1)
    return int(end) if first and end is not None and 0 < end < 2**31 else 0


def _column(wiring: Wiring, node: onnx.NodeProto) -> bool:
    return _scalar(wiring, node, 3) in (1, -1) or (
        _scalar(wiring, node, 1) == 0 and (_scalar(wiring, node, 2) or 0) >= 2**31
    )


def _cap(wiring: Wiring, core: Core, suppression: onnx.NodeProto) -> int | None:
    """How many the file lets through after suppression, if it says."""
    picked = _picked(wiring, core.boxes)
    kept = None if picked is None else _suppression(wiring, picked[1])
    most = _scalar(wiring, suppression, 2)
    caps = [kept[1] if kept else 0, int(most) if most is not None and 0 < most < 2**31 else 0]
    return min((cap for cap in caps if cap), default=None)


def _locations(wiring: Wiring, attention: str, heads: InnerHeads) -> str:
    """The index by which `attention` is gathered from the top features of all levels, "" if it is not."""
    picked = _picked(wiring, attention)
    if picked is None:
        return ""
    table, index = picked
    tops = [heads.names[f"P{level}top_feats"] for level in heads.levels]
    shapes = [wiring.shape(name) or () for name in tops]
    count, channels = sum(shape[2] * shape[3] for shape in shapes), shapes[0][1]
    if (wiring.shape(table) or ())[-2:] != (count, channels) or count * channels > LARGEST:
        return ""
    locations, numbers = np.arange(count, dtype=np.float32)[:, None], np.arange(channels, dtype=np.float32)[None]
    try:  # the table must be the top features, location by location
        for expected in (locations, numbers):
            feeds = dict(zip(tops, _numbered(shapes, expected), strict=True))
            part = cut_part(wiring, {name: described(name, x) for name, x in feeds.items()}, {table: "table"})
            if not (run(part, feeds)[0].reshape(count, channels) == expected).all():
                return ""
    except Exception:  # ONNX Runtime raises what it likes: then it is not shown
        return ""
    return index


def _numbered(shapes: list[tuple[int, ...]], numbers: Array) -> list[Array]:
    """Maps of the `shapes` that hold `numbers`, float32 [L, 1] by location of all levels or [1, channels]."""
    maps, first = [], 0
    for shape in shapes:
        size = shape[2] * shape[3]
        rows = numbers if len(numbers) == 1 else numbers[first : first + size]
        grid = np.broadcast_to(rows.T[None], (shape[0], shape[1], size)).reshape(shape)
        maps.append(np.ascontiguousarray(grid))
        first += size
    return maps


def _scalar(wiring: Wiring, node: onnx.NodeProto, place: int) -> float | None:
    """The one number that input `place` holds; None where there is none."""
    if len(node.input) <= place or not node.input[place]:
        return None
    value = wiring.constants.get(wiring.unviewed(node.input[place]))
    return float(value.ravel()[0]) if value is not None and value.size == 1 else None
