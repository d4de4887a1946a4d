"""Exported graphs against AdelaiDet's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from trt_blendmask.export import export_onnx

TOLERANCE = 5e-5  # of max(1, largest value); AdelaiDet's float32 is 1.5e-5 from its own float64
MODELS = ("550_r50", "rt_r50", "dla34_small")

Heads = Callable[..., dict[str, np.ndarray]]
Worst = Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], float]


def network_input(image: np.ndarray) -> np.ndarray:
    """BGR minus the mean, then padded right and bottom with 0 to multiples of 32, as AdelaiDet does."""
    h, w = image.shape[:2]
    images = np.zeros((1, 3, -(-h // 32) * 32, -(-w // 32) * 32), np.float32)
    images[0, :, :h, :w] = (image.astype(np.float32) - np.float32([103.53, 116.28, 123.675])).transpose(2, 0, 1)
    return images


@pytest.fixture
def cases(reference: Path) -> list[tuple[Path, Path]]:
    folders = [reference / "end_to_end" / name for name in MODELS]
    found = [(folder, picture) for folder in folders for picture in sorted(folder.glob("img*.npz"))]
    assert found
    return found


def test_output_order_is_that_of_adelaidets_exporter(reference: Path, tmp_path: Path) -> None:
    files = sorted((reference / "onnx").glob("*_r50_legacy.onnx"))
    assert files
    for file in files:
        folder = reference / "end_to_end" / file.stem.removesuffix("_legacy")
        report = export_onnx(folder / "model_plain.pth", folder / "config_full.yaml", tmp_path / "x.onnx", (128, 160))
        theirs, ours = onnx.load(file).graph, onnx.load(report.output).graph
        assert [o.name for o in ours.output] == [o.name for o in theirs.output]
        assert [i.name for i in ours.input] == ["input_image"]


MUTATIONS: dict[str, Callable[[onnx.NodeProto], bool]] = {}


def _mutation(function: Callable[[onnx.NodeProto], bool]) -> Callable[[onnx.NodeProto], bool]:
    MUTATIONS[function.__name__] = function
    return function


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


@_mutation
def protonet_without_half_pixel(node: onnx.NodeProto) -> bool:
    hit = node.op_type == "Resize" and node.name.startswith("basis.")
    if hit:
        _set(node, "coordinate_transformation_mode", "asymmetric")
    return hit


@_mutation
def protonet_with_aligned_corners(node: onnx.NodeProto) -> bool:
    hit = node.op_type == "Resize" and node.name.startswith("basis.")
    if hit:
        _set(node, "coordinate_transformation_mode", "align_corners")
    return hit


@_mutation
def pyramid_bilinear(node: onnx.NodeProto) -> bool:
    hit = node.op_type == "Resize" and node.name.startswith("fpn.")
    if hit:
        _set(node, "mode", "linear")
    return hit


@_mutation
def group_norm_with_another_epsilon(node: onnx.NodeProto) -> bool:
    hit = node.op_type == "InstanceNormalization"
    if hit:
        _set(node, "epsilon", 1e-2)
    return hit


@_mutation
def stride_in_the_3x3(node: onnx.NodeProto) -> bool:
    for name, stride in (("backbone.res4.0.conv1", 1), ("backbone.res4.0.conv2", 2)):
        if node.name == name:
            _set(node, "strides", [stride, stride])
            return True
    return False


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_the_comparison_has_teeth(
    mutation: Callable[[onnx.NodeProto], bool],
    cases: list[tuple[Path, Path]],
    tmp_path: Path,
    heads: Heads,
    worst: Worst,
) -> None:
    folder, picture = cases[0]
    expected = dict(np.load(picture))
    images = network_input(expected["image"])
    report = export_onnx(folder / "model_plain.pth", folder / "config_full.yaml", tmp_path / "x.onnx", images.shape[2:])
    model = onnx.load(report.output)
    assert sum(mutation(node) for node in model.graph.node) > 0
    del model.graph.value_info[:]
    assert worst(heads(model.SerializeToString(), images), expected) > 10 * TOLERANCE
