"""The float network up to its last quantised activation, and those activations of one picture after another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.structures import F32, U8, Letterbox, ModelSpec


class Network:
    """What the activations `tensors` of `model` are for a picture.

    The graph is cut behind them, so selection and masks are not computed, and nothing is kept from one picture to the
    next.
    """

    def __init__(self, model: onnx.ModelProto, spec: ModelSpec, tensors: tuple[str, ...]) -> None:
        self._letterboxer = Letterboxer(spec)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "activations.onnx"
            onnx.save(cut(model, tensors), path)
            self._session = OnnxRuntimeSession(path)

    def letterbox(self, image: U8) -> tuple[npt.NDArray[Any], Letterbox]:
        """The network's input for `image` (uint8 [H, W, 3] BGR), valid until the next call, and its map."""
        return self._letterboxer(image)

    def activations(self, images: npt.NDArray[Any], box: Letterbox) -> dict[str, F32]:
        """Each activation by name, without the part that lies over the letterbox's padding."""
        whole = np.repeat(images, self._session.inputs[0].shape[0], axis=0)  # a batch of one picture
        return {name: picture_part(value[:1], box) for name, value in self._session.run(whole).items()}


def picture_part(values: F32, box: Letterbox) -> F32:
    """The cells of an activation [1, C, h, w] that belong to the picture in the letterbox; all of other shapes.

    A cell covers stride x stride input pixels, the stride being the ratio of the sizes. It counts if one of its pixels
    shows the picture: at the picture's edge that is how a detection there is computed, too. Padding would otherwise
    add thousands of equal values that no detection comes from, and hide what the picture's own look like.
    """
    if values.ndim != 4:
        return values
    (height, width), (scaled_w, scaled_h) = box.input_hw, box.scaled_wh
    h, w = values.shape[2:]
    return values[:, :, : -(-scaled_h * h // height), : -(-scaled_w * w // width)]


def cut(model: onnx.ModelProto, tensors: tuple[str, ...]) -> onnx.ModelProto:
    """A model with the nodes that `tensors` need, and `tensors` (float32) as its outputs."""
    needed = set(tensors)
    nodes = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    graph = onnx.helper.make_graph(
        nodes[::-1],
        "activations",
        list(model.graph.input),
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
