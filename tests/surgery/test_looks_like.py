"""Networks that are no BlendMask: refused in a sentence that says what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from trt_blendmask.errors import DataError
from trt_blendmask.surgery import operate

FLOAT = onnx.TensorProto.FLOAT


def network(
    outputs: dict[str, tuple[int, ...]],
    ops: tuple[str, ...] = (),
    picture: tuple[int, ...] = (1, 3, 640, 640),
    channels: int = 8,
) -> onnx.ModelProto:
    """One convolution, one node of each of `ops`, and outputs of these shapes, each a Resize-free stretch of it."""
    info = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.zeros((channels, 3, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Conv", ["images_in", "w"], ["x"], kernel_shape=[1, 1])]
    constants = [weight]
    for i, kind in enumerate(ops):
        inputs = {"Mul": ["x", "x"], "Gemm": ["g", "g"], "MatMul": ["g", "g"]}.get(kind, ["x"])
        nodes.append(helper.make_node(kind, inputs, [f"op{i}"]))
    if {"Gemm", "MatMul"} & set(ops):
        constants.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "g"))
    nodes.append(helper.make_node("ReduceMax", ["x"], ["scalar"], keepdims=0))
    for name, shape in outputs.items():
        constants.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}.shape"))
        nodes.append(helper.make_node("Expand", ["scalar", f"{name}.shape"], [name]))
    graph = helper.make_graph(
        nodes, "network", [info("images_in", FLOAT, picture)],
        [info(name, FLOAT, shape) for name, shape in outputs.items()], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def levels(**parts: int) -> dict[str, tuple[int, ...]]:
    sizes = [80, 40, 20, 10, 5]
    return {f"{name}{i}": (1, channels, s, s) for name, channels in parts.items() for i, s in enumerate(sizes)}


SILU = ("Sigmoid", "Mul") * 3
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "yolov8": ({"outputs": {"output0": (1, 84, 8400)}, "ops": SILU}, "looks like a YOLO ("),
    "yolov5": ({"outputs": {"output0": (1, 25200, 85)}, "ops": SILU}, "looks like a YOLO ("),
    "yolov5 grids": (
        {"outputs": {f"o{s}": (1, 3, s, s, 85) for s in (80, 40, 20)}, "ops": SILU},
        "looks like a YOLO (",
    ),
    "yolov10": ({"outputs": {"output0": (1, 300, 6)}, "ops": SILU}, "looks like a YOLO ("),
    "yolo, tall": (
        {"outputs": {"output0": (1, 6, 6300)}, "ops": SILU, "picture": (1, 3, 640, 480)},
        "looks like a YOLO (",
    ),
    "yolov8-seg": (
        {"outputs": {"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, "ops": SILU},
        "a YOLO with masks",
    ),
    "yolact": (
        {
            "outputs": {
                "loc": (1, 19248, 4),
                "conf": (1, 19248, 81),
                "mask": (1, 19248, 32),
                "proto": (1, 138, 138, 32),
            },
            "ops": ("Tanh", "Softmax"),
            "picture": (1, 3, 550, 550),
        },
        "YOLACT",
    ),
    "condinst": ({"outputs": levels(cls=80, box=4, ctr=1), "channels": 169}, "CondInst (a controller of 169"),
    "fcos": ({"outputs": levels(cls=80, box=4, ctr=1)}, "FCOS alone (classes, distances and centerness, but no top"),
    "retinanet": ({"outputs": levels(cls=720, box=36)}, "RetinaNet"),
    "solo": (
        {"outputs": {f"mask{s}": (1, s * s, 160, 160) for s in (40, 36, 24, 16, 12)}},
        "SOLO",
    ),
    "detr": (
        {"outputs": {"logits": (1, 100, 92), "boxes": (1, 100, 4)}, "ops": ("Softmax",) * 3},
        "DETR",
    ),
    "classifier": ({"outputs": {"logits": (1, 1000)}, "ops": ("GlobalAveragePool", "Gemm")}, "a classifier"),
    "segmentation": ({"outputs": {"out": (1, 21, 160, 160)}}, "semantic segmentation"),
    "unknown": (
        {"outputs": {"a": (1, 7, 3), "b": (2,)}},
        "another network: inputs 'images_in' [1, 3, 640, 640]; outputs 'a' [1, 7, 3], 'b' [2]",
    ),
}


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    onnx.save(model, folder / "other.onnx")
    with pytest.raises(DataError) as caught:
        operate(folder / "other.onnx", folder / "out" / "model.onnx")
    assert not (folder / "out").exists()
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_kinds(tmp_path: Path, name: str) -> None:
    parts, words = CASES[name]
    message = refusal(network(**parts), tmp_path)
    assert words in message
    assert "Type: trt-blendmask" in message
    for other, (_, others) in CASES.items():
        assert words == others or others not in message, other


def test_yolo_with_its_suppression(tmp_path: Path) -> None:
    model = network({"output0": (1, 84, 8400)}, SILU)
    boxes, scores = (
        numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in (("b", (1, 5, 4)), ("s", (1, 1, 5)))
    )
    model.graph.initializer.extend([boxes, scores])
    model.graph.node.append(helper.make_node("NonMaxSuppression", ["b", "s"], ["kept"]))
    model.graph.output.append(helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, ("n", 3)))
    assert "looks like a YOLO" in refusal(model, tmp_path)


def test_mask_rcnn(tmp_path: Path) -> None:
    model = network({"boxes": (1, 100, 4)})
    constants = {"rois": np.zeros((2, 4), np.float32), "number": np.zeros(2, np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    for i in range(2):
        align = helper.make_node(
            "RoiAlign", ["x", "rois", "number"], [f"r{i}"], sampling_ratio=2, output_height=7, output_width=7
        )
        model.graph.node.append(align)
    assert "Mask R-CNN" in refusal(model, tmp_path)


def test_one_align_without_a_blend(tmp_path: Path) -> None:
    model = network({"boxes": (1, 100, 4)})
    constants = {"rois": np.zeros((2, 4), np.float32), "number": np.zeros(2, np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    align = helper.make_node(
        "RoiAlign", ["x", "rois", "number"], ["r"], sampling_ratio=2, output_height=7, output_width=7
    )
    model.graph.node.append(align)
    assert "not BlendMask's blender" in refusal(model, tmp_path)


def test_heads_that_are_not_complete_keep_their_own_words(reference: Path, tmp_path: Path) -> None:
    model = onnx.load(reference / "onnx" / "rt_r50_legacy.onnx")
    kept = [o for o in model.graph.output if o.name != "P4top_feats"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    assert "lack P4top_feats" in refusal(model, tmp_path)
