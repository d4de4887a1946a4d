"""The blender alone, however it is spelled: replaced by our tail, or refused with what was found."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.surgery import cores
from tests.surgery.cores import BASES_HW, SCALE, K, M, R, core
from tests.surgery.graphs import run_model
from tests.surgery.oracle import blend
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery import SurgeryOptions, operate
from trt_blendmask.surgery.whole.core_proof import Settings

MASK = 1e-4
SPELLINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scales": {"resize": cores.resized_by_scales},
    "products": {"resize": cores.resized_by_products},
    "nearest": {"resize": cores.nearest},
    "no resize": {"resize": cores.as_it_is, "m": R, "flat": (K * R * R,)},
    "larger attention": {"m": 12, "flat": (K * 12 * 12,)},
    "softmax last": {"weigh": cores.softmax_last},
    "softmax of rows": {"weigh": cores.softmax_of_rows},
    "softmax spelled": {"weigh": cores.softmax_spelled},
    "softmax spelled, opset 18": {"weigh": cores.softmax_spelled, "opset": 18},
    "keeping": {"blend": cores.multiplied_keeping},
    "einsum": {"blend": cores.einsum},
    "dot product": {"blend": cores.dot_product},
    "summed apart": {"blend": cores.summed_apart},
    "no sigmoid": {"activate": cores.as_it_is},
    "one channel": {"shape": (-1, 1, R, R)},
    "rows out": {"shape": (-1, R * R)},
    "attention by base": {"flat": (K, M * M)},
    "attention grid": {"flat": (K, M, M)},
    "boxes joined": {"boxes": cores.boxes_joined},
    "boxes with number": {"boxes": cores.with_number},
    "two images": {"boxes": cores.with_number, "images": 2},
    "not aligned": {"align": {"coordinate_transformation_mode": "output_half_pixel"}},
    "two samples": {"align": {"sampling_ratio": 2}},
    "opset 10": {"opset": 10, "resize": cores.resized_at_opset_10, "weigh": cores.softmax_last},
    "opset 11": {"opset": 11, "weigh": cores.softmax_last},
    "opset 13": {"opset": 13},
    "opset 16": {"opset": 16, "weigh": cores.softmax_last},
    "opset 22": {"opset": 22},
}


def operated(model: onnx.ModelProto, folder: Path, options: SurgeryOptions | None = None) -> Path:
    raw, out = folder / "tail.onnx", folder / "out" / "native.onnx"
    onnx.save(model, raw)
    operate(raw, out, options)
    return out


def case(seed: int, count: int, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    low = rng.uniform(-11, 40, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 30, (count, 2))], axis=1)
    if shapes["boxes"][1] == 5:
        boxes = np.concatenate([rng.integers(0, shapes["bases"][0], (count, 1)), boxes], axis=1)
    values = {
        "bases": 2 * rng.standard_normal(shapes["bases"]),
        "boxes": boxes,
        "attention": 2 * rng.standard_normal((count, *shapes["attention"][1:])),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def expected(feeds: dict[str, np.ndarray], spelling: dict[str, Any], **mistake: Any) -> tuple[Any, Any]:
    """Masks [n, R, R] of the oracle, and where no sample is near the border of the bases."""
    align = spelling.get("align", {})
    aligned = align.get("coordinate_transformation_mode") != "output_half_pixel" and spelling.get("opset", 17) >= 16
    ratio, mode = align.get("sampling_ratio", 1), "nearest" if spelling.get("resize") is cores.nearest else "bilinear"
    spec = ModelSpec(
        "deployable", ("part",), (40, 56), (8,), K, spelling.get("m", M), R, SCALE, ratio, aligned, mode
    )  # fmt: skip
    masks, decided = [], []
    for box, attention in zip(feeds["boxes"], feeds["attention"], strict=True):
        bases = feeds["bases"][int(box[0]) if len(box) == 5 else 0]
        masks.append(blend(bases, box[-4:], attention.ravel(), spec, **mistake))
        decided.append(_decided(box[-4:], spec))
    return np.stack(masks), np.stack(decided)


def _decided(box: np.ndarray, spec: ModelSpec) -> Any:
    axes: list[Any] = []
    for axis, size in ((1, BASES_HW[0]), (0, BASES_HW[1])):
        start, end = (float(box[i]) * SCALE - (0.5 if spec.aligned else 0) for i in (axis, axis + 2))
        length = end - start if spec.aligned else max(end - start, 1)
        at = start + (np.arange(R * spec.sampling_ratio) + 0.5) / spec.sampling_ratio / R * length
        axes.append((np.minimum(abs(at + 1), abs(at - size)) > 2e-3).reshape(R, -1).all(axis=1))
    return axes[0][:, None] & axes[1][None]


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(tmp_path: Path, name: str) -> None:
    spelling = SPELLINGS[name]
    model = core(**spelling)
    out = operated(model, tmp_path)
    native = onnx.load(out)
    assert not {"RoiAlign", "Softmax", "If"} & {node.op_type for node in native.graph.node}
    assert [i.name for i in native.graph.input] == [i.name for i in model.graph.input]
    for count in (7, 1, 0):
        feeds = case(3, count, model)
        got = run_model(out.read_bytes(), feeds)["masks"]
        assert got.shape == (count, *(s if s > 0 else R for s in spelling.get("shape", (-1, R, R))[1:]))
        if not count:
            continue
        wanted, decided = expected(feeds, spelling)
        probability = got.reshape(count, R, R).astype(np.float64)
        if spelling.get("activate") is cores.as_it_is:
            probability = 1 / (1 + np.exp(-probability))
        assert np.abs(probability - wanted)[decided].max() < MASK
        other, _ = expected(feeds, spelling, swap_xy=True)
        assert np.abs(probability - other)[decided].max() > 100 * MASK


MUTATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "softmax before the resize": ({"weigh_first": True}, "Softmax(axis 1), Resize(linear"),
    "softmax over rows": ({"weigh": lambda g, x: g.add("Softmax", x, axis=2)}, "Softmax(axis 2)"),
    "no softmax": ({"weigh": cores.as_it_is}, "masks that differ"),
    "sigmoid weights": ({"weigh": cores.sigmoid}, "another network"),
    "corners aligned": ({"resize": partial(cores.resized, transform="align_corners")}, "align_corners"),
    "cubic": ({"resize": partial(cores.resized, mode="cubic")}, "cubic"),
    "softmax of all, opset 11": ({"opset": 11}, "Softmax(axis 1)"),
    "tanh": ({"activate": lambda g, x: g.add("Tanh", x)}, "Tanh"),
    "x and y swapped": ({"boxes": partial(cores.with_number, columns=(2, 1, 4, 3))}, "another network"),
    "subtracted": ({"blend": lambda g, a, b: g.reduce("ReduceSum", g.add("Sub", a, b), 1, 0)}, "another network"),
    "mean": ({"blend": lambda g, a, b: g.reduce("ReduceMean", g.add("Mul", a, b), 1, 0)}, "another network"),
    "largest sample": ({"align": {"mode": "max"}}, "mode 'max'"),
    "adaptive samples": ({"align": {"sampling_ratio": 0}}, "sampling ratio 1"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_other_networks(tmp_path: Path, name: str) -> None:
    change, words = MUTATIONS[name]
    if "boxes" in change:
        model = core(**change)
        model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 5
    else:
        model = core(**change)
    with pytest.raises(DataError) as caught:
        operated(model, tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_options_do_not_fit_a_tail(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="blender alone"):
        operated(core(), tmp_path, SurgeryOptions(max_detections=5))


def test_reference_tail(reference: Path, tmp_path: Path) -> None:
    report = operate(reference / "onnx" / "tail_only_a04_dynamo.onnx", tmp_path / "native.onnx")
    assert [tensor.name for tensor in report.cut] == ["bases", "boxes", "attn"]
    data = np.load(reference / "blender" / "a04_k2_m7_sr2.npz")
    native = (tmp_path / "native.onnx").read_bytes()
    got = run_model(native, {"bases": data["bases"], "boxes": data["boxes"], "attn": data["attn"]})["masks"]
    assert np.abs(got - data["masks"][:, 0])[~data["fragile"]].max() < MASK


def test_settings_are_read() -> None:
    assert Settings(2, 3, 4, 0.25, 1, None, "nearest").spec((32, 32)).aligned
