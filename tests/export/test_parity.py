"""Exported graphs against AdelaiDet's own numbers and against a float64 PyTorch network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from trt_blendmask.export import export_onnx

TOLERANCE = 5e-5  # of max(1, largest value); AdelaiDet's float32 is 1.5e-5 from its own float64
FLOAT64_TOLERANCE = 2e-5
RESNET_MODELS = ("550_r50", "rt_r50")

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
    folders = [reference / "end_to_end" / name for name in RESNET_MODELS]
    found = [(folder, picture) for folder in folders for picture in sorted(folder.glob("img*.npz"))]
    assert found
    return found


def test_reference_models_match(cases: list[tuple[Path, Path]], tmp_path: Path, heads: Heads, worst: Worst) -> None:
    for folder, picture in cases:
        expected = dict(np.load(picture))
        images = network_input(expected["image"])
        output = tmp_path / f"{folder.name}_{picture.stem}.onnx"
        export_onnx(folder / "model_plain.pth", folder / "config_full.yaml", output, images.shape[2:])
        got = heads(output, images)
        ratio = worst(got, expected)
        print(f"{folder.name} {picture.stem}: worst {ratio:.1e}")
        assert ratio <= TOLERANCE
        check_attention(got, expected)


def check_attention(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The top features that AdelaiDet picked, looked up by level and location (pixels) in the dense outputs."""
    picks = zip(expected["raw_levels"], expected["raw_locations"], expected["raw_top_feat"], strict=True)
    for level, (x, y), feature in picks:
        stride = 8 << int(level)
        dense = got[f"P{3 + level}top_feats"][0]
        found = dense[:, int((y - stride // 2) / stride), int((x - stride // 2) / stride)]
        np.testing.assert_allclose(found, feature, atol=TOLERANCE * 10, rtol=0)


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


# Group norm needs 32 channels everywhere.
THIRTY_TWO = dict.fromkeys(("STEM_OUT_CHANNELS", "RES2_OUT_CHANNELS", "WIDTH_PER_GROUP"), 32)
NETWORKS: dict[str, dict[str, dict[str, Any]]] = {
    "r18, batch norm per level": {},
    "r18, one batch-normalised tower each": {"FCOS": {"NUM_SHARE_CONVS": 0, "NUM_CLS_CONVS": 1, "NUM_BOX_CONVS": 2}},
    "r34, frozen, P6 and P7, separate towers, group norm": {
        "RESNETS": {"DEPTH": 34, "NORM": "FrozenBN"},
        "FCOS": {"TOP_LEVELS": 2, "NORM": "GN", "NUM_SHARE_CONVS": 1, "NUM_CLS_CONVS": 2, "NUM_BOX_CONVS": 1},
        "BASIS_MODULE": {"NORM": "GN", "CONVS_DIM": 32, "NUM_CONVS": 3},
    },
    "r50, stride in the 3x3, P6, K 6, M 5": {
        "RESNETS": {"DEPTH": 50, "NORM": "SyncBN", "STRIDE_IN_1X1": False, "RES2_OUT_CHANNELS": 16},
        "FCOS": {"TOP_LEVELS": 1, "NUM_CLASSES": 1, "NORM": "GN"},
        "BASIS_MODULE": {"NORM": "FrozenBN", "NUM_BASES": 6, "NUM_CONVS": 1},
        "BLENDMASK": {"ATTN_SIZE": 5},
    },
    "r101, group norm in the backbone, no towers at all": {
        "RESNETS": {"DEPTH": 101, "NORM": "GN", **THIRTY_TWO},
        "FCOS": {"NUM_SHARE_CONVS": 0, "NORM": "GN"},
        "BASIS_MODULE": {"NUM_CONVS": 0},
    },
}  # fmt: skip


def run_torch(network: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        return {k: v.numpy() for k, v in network.raw_heads(torch.from_numpy(images).double()).items()}


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS.keys())
def test_every_form_matches_float64_pytorch(
    changes: dict[str, dict[str, Any]],
    small_config: Callable[..., Path],
    random_network: Callable[[Path], Any],
    tmp_path: Path,
    heads: Heads,
    worst: Worst,
) -> None:
    import torch

    config = small_config(changes)
    network = random_network(config)
    checkpoint = tmp_path / "small.pth"
    torch.save({"model": network.state_dict(), "iteration": 5}, checkpoint)  # float64 in the file
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 64, 96)).astype(np.float32)
    report = export_onnx(checkpoint, config, tmp_path / "small.onnx", batch=2)
    got, expected = heads(report.output, images), run_torch(network, images)
    assert set(got) == set(expected)
    assert worst(got, expected) <= FLOAT64_TOLERANCE
    assert "iteration" in report.ignored_keys


def test_learned_scales_are_folded(
    small_config: Callable[..., Path],
    random_network: Callable[[Path], Any],
    tmp_path: Path,
    heads: Heads,
) -> None:
    import torch

    network = random_network(small_config())
    state = network.state_dict()
    scales = [0.5, 1.25, 3.0]
    for level, scale in enumerate(scales):
        state[f"proposal_generator.fcos_head.scales.{level}.scale"] = torch.tensor([scale])
    checkpoint = tmp_path / "scaled.pth"
    torch.save(state, checkpoint)
    config = small_config({"FCOS": {"USE_SCALE": True}})
    images = np.random.default_rng(1).normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    got = heads(export_onnx(checkpoint, config, tmp_path / "scaled.onnx").output, images)
    expected = run_torch(network, images)  # without scales: relu(s * x) = s * relu(x) for s > 0
    for level, scale in enumerate(scales):
        np.testing.assert_allclose(got[f"P{3 + level}bbox_reg"], scale * expected[f"P{3 + level}bbox_reg"], 1e-4, 2e-5)


def test_tower_without_norm(
    small_config: Callable[..., Path],
    random_network: Callable[[Path], Any],
    tmp_path: Path,
    heads: Heads,
    worst: Worst,
) -> None:
    """NORM "none" leaves conv and ReLU, numbered 0, 2, ...; the oracle's norms are made the identity."""
    import torch

    network = random_network(small_config())
    prefix = "proposal_generator.fcos_head.share_tower."
    for key, value in network.state_dict().items():
        if key.startswith(prefix) and value.ndim == 1 and key.count(".") == 5:  # <prefix>{layer}.{level}.<name>
            value.fill_(1.0 if key.endswith("weight") else 0.0)
            if key.endswith("running_var"):
                value.fill_(1.0 - 1e-5)
    state = network.state_dict()
    plain = {k: v for k, v in state.items() if not k.startswith(prefix)}
    for layer in (0, 1):
        for part in ("weight", "bias"):
            plain[f"{prefix}{2 * layer}.{part}"] = state[f"{prefix}{3 * layer}.{part}"]
    checkpoint = tmp_path / "plain.pth"
    torch.save(plain, checkpoint)
    images = np.random.default_rng(2).normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    report = export_onnx(checkpoint, small_config({"FCOS": {"NORM": "none"}}), tmp_path / "plain.onnx")
    assert worst(heads(report.output, images), run_torch(network, images)) <= FLOAT64_TOLERANCE
