"""Exported graphs against PyTorch in float64, over 200 random configurations, the same ones in every run.

The bound is per output: the largest error is at most `TOLERANCE` of max(1, the largest value).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from samples.conveyor.model import BlendMask
from tests.training.oracle import DLA, network
from trt_blendmask.export import export_onnx

STARTS = 22
LIMITS = settings(
    max_examples=12,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TOLERANCE = 5e-5
RESNET = "build_fcos_resnet_fpn_backbone"

# ONNX Runtime has DeformConv since 1.25.
FORMS = ("native", "op") if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25) else ("native",)

Tree = dict[str, Any]


@st.composite
def backbones(draw: st.DrawFn) -> Tree:
    """The sections MODEL.BACKBONE, RESNETS, DLA and the names of the levels."""
    norm = draw(st.sampled_from(("FrozenBN", "BN", "SyncBN", "GN", "")))
    kind = draw(st.sampled_from((18, 34, 50, 50, 50, 101, "DLA", "DLA")))
    if kind == "DLA":
        return {
            "BACKBONE": {"NAME": DLA},
            "DLA": {"NORM": norm if "BN" in norm else "BN", "CONV_BODY": "DLA34"},
            "RESNETS": {"DEPTH": 18, "STEM_OUT_CHANNELS": 8, "RES2_OUT_CHANNELS": 8},
            "FPN": {"IN_FEATURES": ["level3", "level4", "level5"]},
        }
    width = 32 if norm == "GN" else draw(st.sampled_from((4, 8, 12)))
    res: Tree = {
        "DEPTH": kind,
        "NORM": norm,
        "STEM_OUT_CHANNELS": width,
        "RES2_OUT_CHANNELS": width * draw(st.sampled_from((1, 2))),
        "OUT_FEATURES": ["res3", "res4", "res5"],
    }
    if kind in (50, 101):
        groups = draw(st.sampled_from((1, 1, 2, 4)))
        res |= {
            "NUM_GROUPS": groups,
            "WIDTH_PER_GROUP": width // groups,
            "STRIDE_IN_1X1": draw(st.booleans()),
            "DEFORM_ON_PER_STAGE": draw(st.sampled_from((NOWHERE, LATE, EVERYWHERE))),
            "DEFORM_INTERVAL": draw(st.integers(1, 3)),
            "DEFORM_MODULATED": draw(st.booleans()),
            "DEFORM_NUM_GROUPS": draw(st.sampled_from((1, 1, 2))),
        }
    return {"BACKBONE": {"NAME": RESNET}, "RESNETS": res, "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]}}


DLA_CHANNELS = (4, 4, 8, 16, 16, 32)
NOWHERE, LATE, EVERYWHERE = [False] * 4, [False, True, True, True], [True] * 4


@st.composite
def models(draw: st.DrawFn) -> Tree:
    """A section MODEL."""
    tree = draw(backbones())
    fpn_norm, head_norm = (
        draw(st.sampled_from(("", "", "BN", "GN"))),
        draw(st.sampled_from(("GN", "BN", "SyncBN", "none"))),
    )
    basis_norm = draw(st.sampled_from(("BN", "SyncBN", "FrozenBN", "GN", "")))
    channels = 128 if "GN" in (fpn_norm, head_norm) else draw(st.sampled_from((6, 16, 24)))
    tree["FPN"] |= {"OUT_CHANNELS": channels, "NORM": fpn_norm}
    return tree | {
        "META_ARCHITECTURE": "BlendMask",
        "PROPOSAL_GENERATOR": {"NAME": "FCOS"},
        "FCOS": {
            "NUM_CLASSES": draw(st.integers(1, 9)),
            "TOP_LEVELS": draw(st.integers(0, 2)),
            "NUM_SHARE_CONVS": draw(st.integers(0, 2)),
            "NUM_CLS_CONVS": draw(st.integers(0, 2)),
            "NUM_BOX_CONVS": draw(st.integers(0, 2)),
            "NORM": head_norm,
            "USE_SCALE": draw(st.booleans()),
            "USE_DEFORMABLE": draw(st.sampled_from((False, False, True))),
            "THRESH_WITH_CTR": True,
        },
        "BASIS_MODULE": {
            "IN_FEATURES": ["p3", "p4", "p5"][: draw(st.sampled_from((1, 2, 3, 3, 3)))],
            "CONVS_DIM": 64 if basis_norm == "GN" else draw(st.sampled_from((8, 16))),
            "NUM_CONVS": draw(st.integers(0, 3)),
            "NORM": basis_norm,
            "NUM_BASES": draw(st.integers(1, 6)),
        },
        "BLENDMASK": {
            "ATTN_SIZE": draw(st.integers(1, 7)),
            "BOTTOM_RESOLUTION": draw(st.sampled_from((14, 28, 56))),
        },
    }


def randomise(model: BlendMask, number: int) -> BlendMask:
    """Every weight, norm vector and statistic random, in float64 but with the values that a float32 file holds."""
    generator = torch.Generator().manual_seed(number)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif key.endswith(".scale"):
            value.uniform_(0.3, 3.0, generator=generator)
        elif value.ndim == 4:
            # Small where the signal would grow from block to block, and rounding with it beyond comparison.
            reach = 0.02 if "offset" in key else 0.2 if "conv3" in key else 1.0
            value.normal_(0.0, reach * (2.0 / value[0].numel()) ** 0.5, generator=generator)
        elif value.ndim == 1:
            spread = 1.0 if "offset" in key else 0.3  # pixels
            value.normal_(1.0 if key.endswith("weight") else 0.0, spread, generator=generator)
    return model.double()


def run(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input_image": images}), strict=True))


def worst_error(tree: Tree, picture_hw: tuple[int, int], batch: int, number: int, deform: str, folder: Path) -> float:
    """Export and run one configuration on random pictures; the largest error of any output."""
    config, checkpoint = folder / "x.yaml", folder / "x.pth"
    config.write_text(yaml.safe_dump({"MODEL": tree}))
    model = randomise(network(config, DLA_CHANNELS), number)
    state = {key: value.float() for key, value in model.state_dict().items()}
    torch.save(
        {"model": state, "iteration": 5} if number % 2 else state,
        checkpoint,
        _use_new_zipfile_serialization=number % 3 > 0,
    )

    pictures = np.random.default_rng(number).normal(0, 1, (batch, 3, *picture_hw)).astype(np.float32)  # normalised
    bottom, right = (-side % 32 for side in picture_hw)
    images = np.pad(pictures, ((0, 0), (0, 0), (0, bottom), (0, right)))
    report = export_onnx(checkpoint, config, folder / "x.onnx", images.shape[2:], batch, deform)
    got = run(report.output, images)
    with torch.no_grad():
        expected = model.raw_heads(F.pad(torch.from_numpy(pictures).double(), (0, right, 0, bottom)))
    assert set(got) == set(expected)
    assert all(got[name].shape == tuple(expected[name].shape) for name in got)
    check_report(report, tree)
    return max(float(np.abs(got[n] - e.numpy()).max() / max(1.0, np.abs(e.numpy()).max())) for n, e in expected.items())


def check_report(report: Any, tree: Tree) -> None:
    spec, fcos, basis = report.spec, tree["FCOS"], tree["BASIS_MODULE"]
    assert (spec.num_classes, spec.num_bases) == (fcos["NUM_CLASSES"], basis["NUM_BASES"])
    assert (spec.attention_size, spec.mask_size) == tuple(tree["BLENDMASK"].values())
    assert spec.strides == tuple(8 << level for level in range(3 + fcos["TOP_LEVELS"]))
    dead = ("backbone.bottom_up.level3.project", "backbone.bottom_up.level4.project", "iteration")
    assert all(key.endswith("num_batches_tracked") or key.startswith(dead) for key in report.ignored_keys)


def too_small_for_group_norm(tree: Tree, picture_hw: tuple[int, int]) -> bool:
    """PyTorch refuses group norm over a single number."""
    top = tree["FCOS"]["TOP_LEVELS"]
    return "'GN'" in str(tree) and max(-(-side // (32 << top)) for side in picture_hw) == 1


def features(tree: Tree, batch: int) -> list[str]:
    """What the configuration covers, to be counted."""
    res, dla = tree["RESNETS"], tree["BACKBONE"]["NAME"] == DLA
    depth = "DLA-34" if dla else f"R-{res['DEPTH']}"
    deformable = "DCN" if not dla and any(res.get("DEFORM_ON_PER_STAGE", ())) else "no DCN"
    towers = "deformable towers" if tree["FCOS"]["USE_DEFORMABLE"] else "plain towers"
    return [depth, deformable, towers, f"batch {batch}", f"TOP_LEVELS {tree['FCOS']['TOP_LEVELS']}"]


def test_random_configurations_match_float64_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    seen: Counter[str] = Counter()
    errors: dict[str, float] = {}
    sides = st.integers(17, 96)

    @LIMITS
    @given(models(), st.tuples(sides, sides), st.sampled_from((1, 3)), st.sampled_from(FORMS))
    def check(tree: Tree, picture_hw: tuple[int, int], batch: int, deform: str) -> None:
        batch = 3 if too_small_for_group_norm(tree, picture_hw) else batch
        case = str((tree, picture_hw, batch, deform))
        if case in errors:
            return
        with tempfile.TemporaryDirectory() as folder:
            error = worst_error(tree, picture_hw, batch, len(errors), deform, Path(folder))
        assert error <= TOLERANCE
        errors[case] = error
        seen.update(features(tree, batch))

    for start in range(STARTS):  # afresh: hypothesis varies what it has rather than drawing something else
        seed(start)(check)()
    with capsys.disabled():
        print(f"\n{len(errors)} configurations, worst error {max(errors.values()):.1e}: {dict(sorted(seen.items()))}")
    assert len(errors) >= 200
    assert min(seen.values()) >= 10
