"""A raw-head file that normalises its picture itself: cut to what is behind, or the mean would be taken off twice."""

from __future__ import annotations

from typing import Any

import onnx

from trt_blendmask.surgery.reading.fold_shapes import fold_shapes
from trt_blendmask.surgery.reading.load import OLDEST_IR, Loaded
from trt_blendmask.surgery.reading.read_graph import fix_batch
from trt_blendmask.surgery.report import StepOutcome
from trt_blendmask.surgery.whole.end_to_end import cut_roles
from trt_blendmask.surgery.whole.inner_heads import PICTURE_STEPS, find_picture
from trt_blendmask.surgery.whole.wiring import read_wiring


def take_off_normalisation(loaded: Loaded) -> tuple[Loaded, dict[str, Any], tuple[StepOutcome, ...]]:
    """The network behind the picture's own arithmetic, the `pixel_mean` and `pixel_std` found there, and the report.

    A file whose input goes into the network as it is comes back untouched.

    Raises:
        DataError: arithmetic that is no normalisation, or a picture without fixed size.
    """
    if not _begins_with_a_step(loaded):
        return loaded, {}, ()
    model = onnx.ModelProto()
    model.CopyFrom(loaded.model)
    model.ir_version = OLDEST_IR
    batch = fix_batch(model)
    fold_shapes(model, loaded.weights)
    wiring = read_wiring(model, loaded.weights.arrays)
    picture = find_picture(wiring, wiring.inputs)
    cut = cut_roles(wiring, {picture.tensor: picture.value(wiring)}, {name: name for name in wiring.outputs}, loaded)
    found = {} if picture.mean is None else {"pixel_mean": picture.mean, "pixel_std": picture.std}
    sentence = "; ".join(filter(None, (picture.sentence, batch)))
    came, left = len(loaded.model.graph.node), len(cut.graph.node)
    return Loaded(cut, loaded.weights), found, (StepOutcome("picture", sentence, came, left),)


def _begins_with_a_step(loaded: Loaded) -> bool:
    if not any(node.op_type == "Conv" for node in loaded.model.graph.node):
        return False
    inputs = [value.name for value in loaded.model.graph.input if value.name not in loaded.weights.arrays]
    readers = [node for node in loaded.model.graph.node if set(inputs) & set(node.input) and node.op_type != "Shape"]
    return len(inputs) == 1 and len(readers) == 1 and readers[0].op_type in PICTURE_STEPS
