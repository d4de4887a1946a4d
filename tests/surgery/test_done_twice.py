"""What an exporter put into the file that surgery puts there too: the same detections or a refusal, never done twice.

Behind the heads the sigmoid and the stride, before the network the normalisation of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from tests.surgery.graphs import run_model
from trt_blendmask.errors import DataError
from trt_blendmask.surgery import SurgeryOptions, operate

Edit = Callable[[onnx.ModelProto], None]
OPTIONS = SurgeryOptions(max_detections=20, mask_dtype="uint8")


def behind(model: onnx.ModelProto, part: str, op: str, *constants: float) -> None:
    """Put `op` behind every output of that part: with one of `constants` as its second input, level by level."""
    names = [output.name for output in model.graph.output if output.name.endswith(part)]
    for level, name in enumerate(names):
        inner = f"{name}.{len(model.graph.node)}"
        for node in model.graph.node:
            node.output[:] = [inner if x == name else x for x in node.output]
        inputs = [inner]
        if constants:
            value = np.float32(constants[level])
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), f"{name}.by"))
            inputs.append(f"{name}.by")
        model.graph.node.append(helper.make_node(op, inputs, [name], f"finish.{inner}"))


def finished(model: onnx.ModelProto) -> None:
    behind(model, "logits", "Sigmoid")
    behind(model, "centerness", "Sigmoid")
    behind(model, "bbox_reg", "Mul", 8, 16, 32)


def without_names(model: onnx.ModelProto) -> None:
    finished(model)
    graph = gs.import_onnx(model)
    for i, output in enumerate(graph.outputs):
        output.name = f"y{i}"
    graph.outputs.reverse()
    model.CopyFrom(gs.export_onnx(graph))


def scores_too(model: onnx.ModelProto) -> None:
    """The logits before and behind the sigmoid."""
    behind(model, "logits", "Sigmoid")
    inner = [node.input[0] for node in model.graph.node if node.name.startswith("finish.")]
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner)


def operated(model: onnx.ModelProto, folder: Path) -> tuple[dict[str, Any], str]:
    onnx.save(model, folder / "raw.onnx")
    report = operate(folder / "raw.onnx", folder / "model.onnx", OPTIONS)
    said = " ".join(report.lines())
    frame = np.random.default_rng(4).integers(0, 256, (1, 128, 160, 3), dtype=np.uint8)
    return run_model((folder / "model.onnx").read_bytes(), {"images": frame}), said


@pytest.fixture(scope="module")
def raw(reference: Path) -> bytes:
    return (reference / "onnx" / "rt_r50_legacy.onnx").read_bytes()


def before(model: onnx.ModelProto, nodes: list[onnx.NodeProto], **constants: Any) -> None:
    """Let `nodes` make "ready" of the picture, and the network read that."""
    for node in model.graph.node:
        node.input[:] = ["ready" if x == "input_image" else x for x in node.input]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())


MEAN = np.array([103.53, 116.28, 123.675], np.float32).reshape(1, 3, 1, 1)


def normalised(model: onnx.ModelProto) -> None:
    before(model, [helper.make_node("Sub", ["input_image", "mean"], ["ready"])], mean=MEAN)


def frames(model: onnx.ModelProto) -> None:
    """uint8 [N, H, W, 3], RGB."""
    nodes = [
        helper.make_node("Cast", ["input_image"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "flip"], ["bgr"], axis=1),
        helper.make_node("Sub", ["bgr", "mean"], ["ready"]),
    ]
    before(model, nodes, flip=[2, 1, 0], mean=MEAN)
    kind = next(value for value in model.graph.input if value.name == "input_image").type.tensor_type
    kind.elem_type = onnx.TensorProto.UINT8
    for dim, side in zip(kind.shape.dim, (1, 128, 160, 3), strict=True):
        dim.dim_value = side


def another_input(model: onnx.ModelProto) -> None:
    """That nothing reads, as tracing leaves it."""
    model.graph.input.append(helper.make_tensor_value_info("im_info", onnx.TensorProto.FLOAT, [1, 3]))


@pytest.mark.parametrize("edit", [normalised, frames, another_input])
def test_the_picture_is_normalised_once(raw: bytes, tmp_path: Path, edit: Edit) -> None:
    model = onnx.load_model_from_string(raw)
    expected, _ = operated(model, tmp_path)
    edit(model)
    got, said = operated(model, tmp_path)
    assert ("normalised in the file: mean 103.53/116.28/123.675" in said) == (edit is not another_input)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize("edit", [finished, without_names, scores_too])
def test_the_same_detections(raw: bytes, tmp_path: Path, edit: Edit) -> None:
    model = onnx.load_model_from_string(raw)
    expected, said = operated(model, tmp_path)
    assert expected["count"] == 20
    assert "taken off" not in said
    edit(model)
    got, said = operated(model, tmp_path)
    assert "Sigmoid behind P3logits, P" in said
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


REFUSED: dict[str, tuple[Edit, str]] = {
    "not its stride": (lambda m: behind(m, "bbox_reg", "Mul", 8, 16, 16), "'P5bbox_reg' to end in Relu"),
    "exponential": (lambda m: behind(m, "bbox_reg", "Exp"), "ends in Exp"),
    "twice": (lambda m: (behind(m, "logits", "Sigmoid"), behind(m, "logits", "Sigmoid"))[0], "ends in Sigmoid"),
    "softmax": (lambda m: behind(m, "logits", "Softmax"), "'P3logits' as its convolution gives it"),
    "bases": (lambda m: behind(m, "bases", "Sigmoid"), "'bases' as its convolution gives it"),
    "attention": (lambda m: behind(m, "top_feats", "Sigmoid"), "'P3top_feats' as its convolution gives it"),
}


@pytest.mark.parametrize(("edit", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(raw: bytes, tmp_path: Path, edit: Edit, words: str) -> None:
    model = onnx.load_model_from_string(raw)
    edit(model)
    with pytest.raises(DataError, match=words):
        operated(model, tmp_path)
