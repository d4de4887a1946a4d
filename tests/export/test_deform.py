"""Deformable convolution, written as standard ops and as DeformConv, against a plain loop in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest

from tests.export.safetensors_file import save
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.export import export_onnx
from trt_blendmask.export.deform import Deform, deform_conv_norm
from trt_blendmask.export.layers import Conv, GraphBuilder
from trt_blendmask.export.reader import read_checkpoint
from trt_blendmask.export.weights import Weights

F64 = npt.NDArray[np.float64]
HAS_DEFORM_CONV = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 25)
needs_deform_conv = pytest.mark.skipif(not HAS_DEFORM_CONV, reason="this ONNX Runtime has no DeformConv")
TOLERANCE = 2e-5  # of max(1, largest value)


@dataclass(frozen=True)
class Case:
    channels: int = 4
    out: int = 3
    size: tuple[int, int] = (5, 7)
    stride: int = 1
    groups: int = 1
    offset_groups: int = 1
    modulated: bool = True
    reach: float = 1.5  # pixels, of the offsets


CASES = {
    "one group": Case(),
    "no mask": Case(modulated=False),
    "stride 2": Case(stride=2, size=(6, 8)),
    "two groups of offsets": Case(offset_groups=2),
    "four groups of offsets, two of weights, no mask": Case(4, 6, (4, 4), 2, 2, 4, False),
    "far beyond the border": Case(reach=30.0),
    "whole pixels": Case(reach=0.0),
    "one row": Case(size=(1, 9)),
    "one column": Case(size=(8, 1)),
    "one pixel": Case(size=(1, 1), reach=0.4),
}


@dataclass(frozen=True)
class Tensors:
    image: F64
    weight: F64
    bias: F64
    offset_weight: F64
    offset_bias: F64


def draw(case: Case) -> Tensors:
    random = np.random.default_rng(5)
    total = case.offset_groups * (27 if case.modulated else 18)
    shift = random.normal(0, case.reach, total)
    values = (
        random.normal(0, 1, (2, case.channels, *case.size)),
        random.normal(0, 0.3, (case.out, case.channels // case.groups, 3, 3)),
        random.normal(0, 1, case.out),
        random.normal(0, 0.1 * case.reach, (total, case.channels, 3, 3)),
        np.round(shift) if case.reach in (0, 30) else shift,
    )
    return Tensors(*(v.astype(np.float32).astype(np.float64) for v in values))


def read(plane: F64, y: float, x: float) -> float:
    """Bilinear; 0 beyond the border."""
    (height, width), (top, left) = plane.shape, (floor(y), floor(x))
    total = 0.0
    for row, rows in ((top, top + 1 - y), (top + 1, y - top)):
        for column, columns in ((left, left + 1 - x), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                total += rows * columns * plane[row, column]
    return total


def convolve(image: F64, weight: F64, bias: F64, stride: int) -> F64:
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("oikl,nihwkl->nohw", weight, windows) + bias[:, None, None]


def expected(case: Case, t: Tensors, swap: bool = False, sigmoid: bool = True, shift: float = 0.0) -> F64:
    """The definition, one output value after another; the flags are mistakes that one can make."""
    raw = convolve(t.image, t.offset_weight, t.offset_bias, case.stride)
    n, _, h, w = raw.shape
    count = 18 * case.offset_groups
    offsets = raw[:, :count].reshape(n, case.offset_groups, 9, 2, h, w)
    logits = raw[:, count:].reshape(n, -1, 9, h, w)
    masks = 1 / (1 + np.exp(-logits)) if sigmoid else logits
    result = np.zeros((n, case.out, h, w)) + t.bias[:, None, None]
    for image, channel, tap, y, x in np.ndindex(n, case.channels, 9, h, w):
        group = channel // (case.channels // case.offset_groups)
        dy, dx = offsets[image, group, tap, ::-1, y, x] if swap else offsets[image, group, tap, :, y, x]
        place = y * case.stride - 1 + tap // 3 + dy, x * case.stride - 1 + tap % 3 + dx + shift
        value = read(t.image[image, channel], *place) * (masks[image, group, tap, y, x] if case.modulated else 1)
        part, inner = divmod(channel, case.channels // case.groups)
        outs = slice(part * case.out // case.groups, (part + 1) * case.out // case.groups)
        result[image, outs, y, x] += t.weight[outs, inner, tap // 3, tap % 3] * value
    return result


def model_of(case: Case, t: Tensors, folder: Path, as_op: bool) -> onnx.ModelProto:
    state = {"c.weight": t.weight, "c.bias": t.bias, "o.weight": t.offset_weight, "o.bias": t.offset_bias}
    save(state, folder / "x.safetensors")
    builder = GraphBuilder(Weights(read_checkpoint(folder / "x.safetensors"), "the test"), as_op)
    x = gs.Variable("x", np.float32, t.image.shape)
    conv = Conv("c", case.out, 3, "the test", case.stride, case.groups)
    y = deform_conv_norm(builder, "deform", x, conv, Deform("o", case.offset_groups, case.modulated))
    assert builder.weights.finish() == ()
    builder.check_names()
    model = gs.export_onnx(gs.Graph(builder.nodes, [x], [y], opset=19 if as_op else 17))
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    return model


def error(model: onnx.ModelProto, image: F64, wanted: F64) -> float:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": image.astype(np.float32)})
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize(
    "as_op", [False, pytest.param(True, marks=needs_deform_conv)], ids=["standard ops", "DeformConv"]
)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_both_forms_match_the_definition(case: Case, as_op: bool, tmp_path: Path) -> None:
    tensors = draw(case)
    model = model_of(case, tensors, tmp_path, as_op)
    assert any(node.op_type == "DeformConv" for node in model.graph.node) == as_op
    assert error(model, tensors.image, expected(case, tensors)) <= TOLERANCE


MISTAKES: dict[str, dict[str, Any]] = {
    "dx before dy": {"swap": True},
    "mask without sigmoid": {"sigmoid": False},
    "half a pixel": {"shift": 0.5},
    "a hundredth of a pixel": {"shift": 0.01},
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_would_be_seen(mistake: dict[str, Any], tmp_path: Path) -> None:
    case = CASES["two groups of offsets"]
    tensors = draw(case)
    assert error(model_of(case, tensors, tmp_path, False), tensors.image, expected(case, tensors, **mistake)) > 1e-3


@pytest.mark.parametrize(("name", "value"), [("align_corners", 1), ("padding_mode", b"border"), ("mode", b"nearest")])
def test_another_sampling_would_be_seen(name: str, value: object, tmp_path: Path) -> None:
    case = Case()
    tensors = draw(case)
    model = model_of(case, tensors, tmp_path, False)
    (sample,) = (node for node in model.graph.node if node.op_type == "GridSample")
    kept = [a for a in sample.attribute if a.name != name]
    del sample.attribute[:]
    sample.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    assert error(model, tensors.image, expected(case, tensors)) > 1e-3


def test_groups_that_do_not_fit_are_named(tmp_path: Path) -> None:
    case = replace(Case(), offset_groups=3)
    with pytest.raises(DataError, match="'deform' has 4 channels, which 3 groups cannot share"):
        model_of(case, draw(case), tmp_path, False)


DEFORMABLE: dict[str, dict[str, Any]] = {
    "RESNETS": {
        "DEPTH": 50,
        "WIDTH_PER_GROUP": 4,
        "DEFORM_ON_PER_STAGE": [False, True, True, True],
        "DEFORM_INTERVAL": 3,
        "DEFORM_MODULATED": True,
    }
}


@needs_deform_conv
def test_whole_networks_agree(
    small_config: Callable[..., Path],
    random_checkpoint: Callable[[Path], Path],
    tmp_path: Path,
    heads: Callable[..., dict[str, np.ndarray]],
    worst: Callable[..., float],
) -> None:
    config = small_config(DEFORMABLE)
    checkpoint = random_checkpoint(config)
    native = export_onnx(checkpoint, config, tmp_path / "native.onnx", batch=2)
    as_op = export_onnx(checkpoint, config, tmp_path / "op.onnx", batch=2, deform="op")
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 64, 96)).astype(np.float32)
    assert worst(heads(native.output, images), heads(as_op.output, images)) <= TOLERANCE
    assert (native.deform_ops, as_op.deform_ops, native.macs) == (0, 5, as_op.macs)
    assert "TensorRT" in as_op.summary()
    assert "DeformConv" not in native.summary()
    models = [onnx.load(report.output) for report in (native, as_op)]
    assert [(m.opset_import[0].version, m.ir_version) for m in models] == [(17, 8), (19, 9)]
    names = {n.name for n in models[1].graph.node if n.op_type == "DeformConv"}
    blocks = ("res3.0", "res3.3", "res4.0", "res4.3", "res5.0")  # of four, six and three, every third
    assert names == {f"backbone.{block}.conv2" for block in blocks}


def test_a_form_that_does_not_exist(small_config: Callable[..., Path], tmp_path: Path) -> None:
    config = small_config(DEFORMABLE)
    save({"x": np.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="--deform native"):
        export_onnx(tmp_path / "x.safetensors", config, tmp_path / "x.onnx", deform="plugin")
