"""Whole graphs as exporters write them: their selection kept or replaced, and the same detections as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import compose, helper, numpy_helper

from tests.surgery.graphs import run_model
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.export import read_config
from trt_blendmask.surgery import SurgeryOptions, SurgeryReport, operate

GRAPHS = Path(__file__).resolve().parent.parent / "golden" / "whole_graphs"
BOX_PX, SCORE, MASK = 1e-2, 1e-5, 1e-4
OP = SurgeryOptions(nms="op")
SELECT = SurgeryOptions(nms="op", max_detections=260)
TINY = {path.stem: path for path in sorted(GRAPHS.glob("tiny_*.onnx"))}


def operated(raw: Path | onnx.ModelProto, folder: Path, options: SurgeryOptions = OP) -> tuple[SurgeryReport, bytes]:
    if isinstance(raw, onnx.ModelProto):
        onnx.save(raw, folder / "raw.onnx")
        raw = folder / "raw.onnx"
    report = operate(raw, folder / "out" / "model.onnx", options)
    return report, (folder / "out" / "model.onnx").read_bytes()


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


def planes(image: np.ndarray) -> np.ndarray:
    return image.transpose(0, 3, 1, 2).astype(np.float32)


def assert_same(got: dict[str, Any], wanted: dict[str, Any], most: int) -> None:
    """`wanted` as the file gives them: boxes [n, 4] ..., of which the best `most` fill the slots."""
    count = min(len(wanted["scores"]), most)
    assert got["count"].tolist() == [count]
    assert np.abs(got["boxes"][0][:count] - wanted["boxes"][:count]).max() <= BOX_PX
    assert np.abs(got["scores"][0][:count] - wanted["scores"][:count]).max() <= SCORE
    assert np.array_equal(got["classes"][0][:count], wanted["classes"][:count])
    masks = wanted["masks"][:count]
    assert np.abs(got["masks"][0][: len(masks)] - masks).max() <= MASK
    assert not got["masks"][0][count:].any()
    assert (got["classes"][0][count:] == -1).all()


@pytest.mark.parametrize("name", TINY)
def test_as_before(tmp_path: Path, name: str) -> None:
    report, model = operated(TINY[name], tmp_path)
    assert report.spec is not None
    assert not {"RoiAlign", "If", "NonZero"} & {node.op_type for node in onnx.load_from_string(model).graph.node}
    image = picture()
    wanted = run_model(TINY[name].read_bytes(), {"image": planes(image)})
    assert_same(run_model(model, {"images": image}), wanted, report.spec.max_detections)


def test_says_what_it_read(tmp_path: Path) -> None:
    report, _ = operated(TINY["tiny_nmsclass_legacy16"], tmp_path)
    assert report.spec is not None
    assert report.spec.thresh_with_ctr is False
    assert report.spec.score_threshold == pytest.approx(0.05)
    assert report.spec.nms_threshold == pytest.approx(0.6)
    assert report.spec.pixel_std == (57.375, 57.12, 58.395)
    text = "\n".join(report.lines())
    for words in ("score > 0.05, IoU > 0.6", "P4top_feats", "[1, 50, 4, 6]", "Softmax(axis 1)", "mean 103.53/116.28"):
        assert words in text
    kept = "\n".join(operated(TINY["tiny_nmsfix_dynamo18"], tmp_path)[0].lines())
    assert "the file's own 256 candidates" in kept
    assert "at 100 of 120 locations" in kept  # the sparse top: its index was told from the file's gathering


def test_dense_top_and_matrix_agree(tmp_path: Path) -> None:
    name, image = "tiny_nmsfix_dynamo18", picture(5)
    wanted = run_model(TINY[name].read_bytes(), {"image": planes(image)})
    _, model = operated(TINY[name], tmp_path, SurgeryOptions(nms="matrix", top="dense", max_detections=40))
    assert_same(run_model(model, {"images": image}), wanted, 40)


def merged(reference: Path, name: str) -> onnx.ModelProto:
    """AdelaiDet's raw-head file of rt_r50 with the rest behind it."""
    raw = onnx.load(reference / "onnx" / "rt_r50_legacy.onnx")
    del raw.graph.input[1:]  # weights
    rest = compose.add_prefix(onnx.load(GRAPHS / f"{name}.onnx"), "rest/")
    raw.ir_version = rest.ir_version = 10
    taken = {value.name for value in rest.graph.input}
    joints = [(o.name, f"rest/{o.name}") for o in raw.graph.output if f"rest/{o.name}" in taken]
    return compose.merge_models(raw, rest, joints)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nms_rest_legacy20", 37),
        ("nmsfix_rest_dynamo20", 228),
        ("nmsfix_rest_legacy20", 228),
        ("topk_rest_legacy20", 100),
    ],
)
def test_reference_rest(reference: Path, tmp_path: Path, name: str, count: int) -> None:
    data, kind = np.load(reference / "onnx" / "rt_r50_e2e_expected.npz"), name.split("_")[0]
    wanted = {key: data[f"{kind}_{key}"] for key in ("boxes", "scores", "classes", "masks")}
    assert len(wanted["scores"]) == count
    _, model = operated(merged(reference, name), tmp_path, OP if kind == "topk" else SELECT)
    assert_same(run_model(model, {"images": data["image"].transpose(0, 2, 3, 1).astype(np.uint8)}), wanted, 260)


def test_reference_topk(reference: Path, tmp_path: Path) -> None:
    data = np.load(reference / "onnx" / "rt_r50_e2e_expected.npz")
    wanted = {key: data[f"topk_{key}"] for key in ("boxes", "scores", "classes", "masks")}
    report, model = operated(reference / "onnx" / "rt_r50_e2e_topk_dynamo.onnx", tmp_path)
    assert_same(run_model(model, {"images": data["image"].transpose(0, 2, 3, 1).astype(np.uint8)}), wanted, 100)
    assert report.macs_after["top_layer"] < report.macs_before["top_layer"] / 3


def suppression(model: onnx.ModelProto) -> onnx.NodeProto:
    bodies = [a.g for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return next(n for body in (model.graph, *bodies) for n in body.node if n.op_type == "NonMaxSuppression")


def looser_suppression(model: onnx.ModelProto) -> None:
    for body in (model.graph, *(a.g for n in model.graph.node for a in n.attribute if a.HasField("g"))):
        for node in body.node:
            if node.op_type == "Constant" and node.output[0] == suppression(model).input[3]:
                node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([0.3], np.float32)))


def higher_threshold(model: onnx.ModelProto) -> None:
    greater = next(node for node in model.graph.node if node.op_type == "Greater")
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.2, np.float32), "higher"))
    greater.input[1] = "higher"


@pytest.mark.parametrize("change", [looser_suppression, higher_threshold])
def test_other_thresholds_are_read(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    raw, image = onnx.load(TINY["tiny_nms_legacy16"]), picture()
    before = len(run_model(raw, {"image": planes(image)})["scores"])
    change(raw)
    wanted = run_model(raw, {"image": planes(image)})
    assert len(wanted["scores"]) < before - 20
    _, model = operated(raw, tmp_path, SELECT)
    assert_same(run_model(model, {"images": image}), wanted, 260)


def after(model: onnx.ModelProto, name: str, kind: str, *constants: np.ndarray, **attributes: Any) -> None:
    """Put a node behind tensor `name`, for all that read it."""
    index = next(i for i, node in enumerate(model.graph.node) if name in node.output)
    result = f"{name}.{kind}"
    for node in model.graph.node:
        node.input[:] = [result if x == name else x for x in node.input]
    names = [f"{result}.{i}" for i in range(len(constants))]
    model.graph.initializer.extend(map(numpy_helper.from_array, constants, names))
    model.graph.node.insert(index + 1, helper.make_node(kind, [name, *names], [result], **attributes))


def score_without_root(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Sqrt").op_type = "Identity"


def clipped_boxes(model: onnx.ModelProto) -> None:
    after(model, "/rest/Concat_4_output_0", "Clip", np.array(0, np.float32), np.array(96, np.float32))


def other_strides(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.output[0] == "/rest/Mul_output_0")
    after(model, node.input[0], "Mul", np.array(1.01, np.float32))


def worst_first(model: onnx.ModelProto) -> None:
    after(model, "/rest/Sqrt_output_0", "Neg")


@pytest.mark.parametrize("change", [score_without_root, clipped_boxes, other_strides, worst_first])
def test_another_selection_is_not_replaced(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    raw = onnx.load(TINY["tiny_nms_legacy16"])
    change(raw)
    with pytest.raises(DataError, match="would change what the file computes"):
        operated(raw, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [score_without_root, clipped_boxes, other_strides])
def test_another_selection_of_fixed_shapes_is_kept(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    raw, image = onnx.load(TINY["tiny_topk_legacy11"]), picture()
    change(raw)
    _, model = operated(raw, tmp_path)
    assert_same(run_model(model, {"images": image}), run_model(raw, {"image": planes(image)}), 100)


def in_any_order(model: onnx.ModelProto) -> None:
    """Slots by chance: scores are not descending."""
    order = np.random.default_rng(1).permutation(100)
    for name in next(node for node in model.graph.node if node.op_type == "TopK").output:
        after(model, name, "Gather", order, axis=0)


def test_slots_are_sorted(tmp_path: Path) -> None:
    raw, image = onnx.load(TINY["tiny_topk_legacy11"]), picture()
    wanted = run_model(raw, {"image": planes(image)})
    in_any_order(raw)
    shuffled = run_model(raw, {"image": planes(image)})["scores"]
    assert (np.diff(shuffled) > 0).any()
    _, model = operated(raw, tmp_path)
    assert_same(run_model(model, {"images": image}), wanted, 100)


def sorted_behind_the_core(model: onnx.ModelProto) -> None:
    """Masks, scores and classes turned round at the end: their rows are no longer those of the core."""
    order = np.arange(100)[::-1].copy()
    model.graph.initializer.append(numpy_helper.from_array(order, "order"))
    for value in model.graph.output:
        if value.name != "boxes":
            model.graph.node.append(helper.make_node("Gather", [value.name, "order"], [f"{value.name}.sorted"], axis=0))
            value.name += ".sorted"


def test_rows_in_another_order_are_not_mixed_up(tmp_path: Path) -> None:
    raw = onnx.load(TINY["tiny_topk_legacy11"])
    sorted_behind_the_core(raw)
    with pytest.raises(DataError, match="would change what the file computes"):
        operated(raw, tmp_path)


def frames_in(model: onnx.ModelProto) -> None:
    """uint8 [N, H, W, 3] RGB with an open batch, by way of 0 ... 1."""
    name, constants = model.graph.input[0].name, {"order": np.array([2, 1, 0]), "255": np.array(255, np.float32)}
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, ("batch", 64, 96, 3)))
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    nodes = [
        helper.make_node("Transpose", ["frames"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["rgb"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", ["rgb", "order"], ["bgr"], axis=1),
        helper.make_node("Div", ["bgr", "255"], ["unit"]),
        helper.make_node("Mul", ["unit", "255"], [name]),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def test_pictures_of_other_kinds(tmp_path: Path) -> None:
    raw, image = onnx.load(TINY["tiny_topk_legacy11"]), picture()
    frames_in(raw)
    report, model = operated(raw, tmp_path)
    assert_same(run_model(model, {"images": image}), run_model(raw, {"frames": image[..., ::-1].copy()}), 100)
    assert "it took RGB, 'images' is BGR" in "\n".join(report.lines())
    assert "open batch is fixed to 1 image" in "\n".join(report.lines())


def test_options_that_a_kept_selection_cannot_follow(tmp_path: Path) -> None:
    for name, options in (
        ("tiny_topk_dynamo18", SurgeryOptions(score_threshold=0.3)),
        ("tiny_topk_dynamo18", SurgeryOptions(nms_threshold=0.5)),
        ("tiny_nmsfix_dynamo18", SurgeryOptions(score_threshold=0.3)),
        ("tiny_nmscap_legacy16", SurgeryOptions(max_detections=50)),
    ):
        with pytest.raises(UsageError, match="selects by itself"):
            operated(TINY[name], tmp_path, options)
    report, _ = operated(TINY["tiny_nms_legacy16"], tmp_path, replace(OP, score_threshold=0.3, nms_threshold=0.5))
    assert report.spec is not None
    assert (report.spec.score_threshold, report.spec.nms_threshold) == (0.3, 0.5)


def test_two_images_are_refused(tmp_path: Path) -> None:
    raw = onnx.load(TINY["tiny_topk_legacy11"])
    raw.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(DataError, match="one image per run"):
        operated(raw, tmp_path)


def test_a_shift_that_an_old_opset_cannot_say(tmp_path: Path) -> None:
    """Half a pixel is taken off since opset 16 only: below, a configuration decides, else the file's own masks stay."""
    kept, _ = operated(TINY["tiny_topk_legacy11"], tmp_path)
    spec = kept.spec
    assert spec is not None
    assert spec.aligned is False
    assert "ROIAlignV2 does" in "\n".join(kept.lines())
    config = replace(
        read_config(preset="R_50_1x"),
        class_names=spec.class_names,
        strides=spec.strides,
        num_bases=spec.num_bases,
        attention_size=spec.attention_size,
    )
    mended, _ = operated(TINY["tiny_topk_legacy11"], tmp_path, replace(OP, config=config))
    assert mended.spec is not None
    assert mended.spec.aligned is True
    assert "half pixel" not in "\n".join(operated(TINY["tiny_topk_dynamo18"], tmp_path)[0].lines())
