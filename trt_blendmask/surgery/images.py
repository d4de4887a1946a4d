"""The input: uint8 frames normalised inside the graph, or float32 planes as they were."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.builder import Builder
from trt_blendmask.surgery.reading.raw_head import RawHead


def rewrite_images(graph: gs.Graph, head: RawHead, spec: ModelSpec) -> str:
    """Replace the raw input by `images`; returns the sentence for the report.

    "uint8": uint8 [N, H, W, 3] BGR -> (x - pixel_mean) / pixel_std -> what the network had as its input.
    "float32": the input stays normalised float32 [N, 3, H, W] and takes the name `images`.
    """
    old_name = head.images.name
    if spec.input_dtype == "float32":
        head.images.name = "images"
        return f"'{old_name}' is now 'images' float32 {list(head.images.shape)}, normalised by the caller"
    n, _, h, w = head.images.shape
    frames = gs.Variable("images", np.uint8, (n, h, w, 3))
    b = Builder(graph, "images")
    head.images.name = "images.normalised"
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (spec.pixel_mean, spec.pixel_std))
    x = b.transpose("planes", b.cast("float", frames, np.float32), (0, 3, 1, 2))
    if (std == 1).all():
        _produce(b, "Sub", x, mean, head.images)
    else:
        _produce(b, "Div", b.op("Sub", "centred", x, mean), std, head.images)
    graph.inputs = [frames]
    return f"'{old_name}' is now 'images' uint8 {[n, h, w, 3]} BGR, normalised in the graph"


def _produce(b: Builder, kind: str, x: gs.Variable, by: np.ndarray, result: gs.Variable) -> None:
    b.op(kind, "normalise", x, by)
    b.graph.nodes[-1].outputs = [result]  # the network reads this very tensor
