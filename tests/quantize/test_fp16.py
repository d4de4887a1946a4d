"""`quantize --precision fp16`: the type of every tensor, and what the rounding costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from benchmarks.half_rounding import rounded_in_float32
from tests.quantize.half_graphs import FLOAT, HALF, types_of
from trt_blendmask.agreement import Agreement, compare_detections
from trt_blendmask.bundled import VIDEO, bundled_model
from trt_blendmask.cli import main
from trt_blendmask.export import export_onnx
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN
from trt_blendmask.quantize import fp16_choice
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.runtime.model import load
from trt_blendmask.structures import METADATA_KEY, Detections, ModelSpec
from trt_blendmask.surgery import SurgeryOptions, operate

GRAPHS = Path(__file__).resolve().parent.parent / "golden" / "whole_graphs"
HW, SLOTS = (128, 160), 12
MOVES = {"Concat", "Gather", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Where"}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def deployable(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Deployable files of the reference's networks, made once."""
    folder = tmp_path_factory.mktemp("deployable")
    made: dict[tuple[str, int, str], Path] = {}

    def make(name: str = "rt_r50", batch: int = 1, **options: Any) -> Path:
        key = (name, batch, repr(options))
        if key not in made:
            source, raw = reference / "end_to_end" / name, folder / f"raw{len(made)}.onnx"
            export_onnx(source / "model_plain.pth", source / "config_full.yaml", raw, HW, batch)
            made[key] = folder / f"model{len(made)}.onnx"
            operate(raw, made[key], SurgeryOptions(max_detections=SLOTS, **options))
        return made[key]

    return make


def check_types(model: onnx.ModelProto) -> Counter[int]:
    """The policy, by the names that surgery gives; returns the casts between the two float types, by target."""
    types = types_of(model)
    for node in model.graph.node:
        name, floats = node.name, {types.get(x) for x in (*node.input, *node.output)} & {HALF, FLOAT}
        if node.op_type in ("Conv", "MatMul", "InstanceNormalization", "RoiAlignBlend"):
            assert types[node.input[0]] == HALF, name
        if name.startswith("tail.mask_"):
            continue  # steps of uint8 behind the plugin, whose masks are float32
        if node.op_type in MOVES or node.op_type == "Cast" or not floats:
            continue
        if name.startswith(("images.", "selection.", "nms.", "tail.roi.x.", "tail.roi.y.")) or ".offset." in name:
            assert floats == {FLOAT}, name
        elif name.startswith(("backbone.", "fpn.", "basis.", "head.", "top.", "tail.")) and "samples" not in name:
            others = {types[x] for k, x in enumerate(node.input) if x and (node.op_type, k) != ("Resize", 2)}
            assert node.domain == PLUGIN_DOMAIN or others & {HALF, FLOAT} == {HALF}, name
    return check_casts(model, types)


def check_casts(model: onnx.ModelProto, types: dict[str, int]) -> Counter[int]:
    casts: Counter[int] = Counter()
    made_by = {name: node for node in model.graph.node for name in node.output}
    seen: set[tuple[str, int]] = set()
    for node in model.graph.node:
        source, target = (types.get(name) for name in (*node.input[:1], *node.output[:1]))
        if node.op_type != "Cast" or {source, target} != {HALF, FLOAT}:
            continue
        casts[target] += 1
        assert (node.input[0], target) not in seen, f"{node.input[0]} is cast twice"
        seen.add((node.input[0], target))
        before = made_by.get(node.input[0])
        while before is not None and before.op_type in MOVES and len(before.input) < 3:
            before = made_by.get(before.input[0])
        assert before is None or before.op_type != "Cast" or types[before.input[0]] not in (HALF, FLOAT), node.name
    return casts


@pytest.mark.parametrize(("name", "casts"), [("rt_r50", 11), ("550_r50", 12), ("dla34_small", 11)])
def test_every_tensor_has_its_type(deployable: Make, tmp_path: Path, name: str, casts: int) -> None:
    source, output = deployable(name), tmp_path / "half.onnx"
    report = quantize_fp16(source, output)
    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    found = check_types(model)
    assert sum(found.values()) == casts
    declared = {info.name for info in (*model.graph.value_info, *model.graph.output)}
    assert declared == {name for node in model.graph.node for name in node.output}, "every tensor says its type"
    assert (report.typing.casts.to_half, report.typing.casts.to_float) == (found[HALF], found[FLOAT])
    assert report.typing.half == report.typing.total > 20
    before = onnx.load(source)
    assert list(model.graph.input) == list(before.graph.input)
    assert list(model.graph.output) == list(before.graph.output)
    spec = ModelSpec.from_json(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    old = ModelSpec.from_json(next(p.value for p in before.metadata_props if p.key == METADATA_KEY))
    assert spec == replace(old, precision="fp16")
    assert output.stat().st_size < 0.6 * source.stat().st_size
    assert len({t.name for t in model.graph.initializer}) == len(model.graph.initializer)


@pytest.mark.parametrize("name", ["tiny_topk_dynamo18", "tiny_nmsfix_dynamo18", "tiny_nms_legacy11"])
def test_selection_of_other_exporters_stays_float32(tmp_path: Path, name: str) -> None:
    """Whole graphs, a selection of their own in them; names say nothing there."""
    operate(GRAPHS / f"{name}.onnx", tmp_path / "model.onnx", SurgeryOptions(nms="op"))
    quantize_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    assert sum(check_casts(model, types).values()) <= 10
    for node in model.graph.node:
        if node.op_type in ("Exp", "Sigmoid", "TopK", "Sqrt", "Greater") and not node.name.startswith("tail."):
            assert types[node.input[0]] == FLOAT, node.name
        if node.op_type in ("Conv", "MatMul"):
            assert types[node.input[0]] == HALF, node.name


@pytest.mark.parametrize("mask_dtype", ["float16", "uint8"])
def test_mask_types_and_batch(deployable: Make, tmp_path: Path, mask_dtype: str) -> None:
    source = deployable(batch=2, mask_dtype=mask_dtype, input_dtype="float32", nms="op", top="dense")
    quantize_fp16(source, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    check_types(model)
    assert list(model.graph.output) == list(onnx.load(source).graph.output)
    if mask_dtype == "float16":
        made = next(node for node in model.graph.node if node.output[0] == "masks")
        assert made.op_type == "Where", "no cast is needed"


@pytest.mark.parametrize("mask_dtype", ["float32", "float16", "uint8"])
def test_plugin_reads_half(deployable: Make, tmp_path: Path, mask_dtype: str) -> None:
    source = deployable(tail="plugin", mask_dtype=mask_dtype)
    quantize_fp16(source, tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    assert check_types(model)[HALF] == 1, "the image; boxes go in as they are"
    node, types = next(n for n in model.graph.node if n.domain == PLUGIN_DOMAIN), types_of(model)
    assert [types[name] for name in node.input] == [HALF, FLOAT, HALF, TensorProto.INT32]
    declared = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    assert declared.keys() == {name for other in model.graph.node for name in other.output}
    assert declared[node.output[0]] == (HALF if mask_dtype == "float16" else FLOAT)
    assert list(model.graph.output) == list(onnx.load(source).graph.output)


def detections_of(path: Path, frames: list[Any]) -> list[Detections]:
    with load(path) as model:
        return [model(frame) for frame in frames]


def test_detections_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled model with every float16 tensor rounded; decoding in float16, too, must be seen to fail."""
    with load(bundled_model()) as model:
        frames = [frame.image for frame, _ in zip((f for f, _ in model.stream(str(VIDEO))), range(2), strict=False)]
    reference = detections_of(bundled_model(), frames)

    def agreement() -> Agreement:
        quantize_fp16(bundled_model(), tmp_path / "half.onnx")
        onnx.save(rounded_in_float32(onnx.load(tmp_path / "half.onnx")), tmp_path / "rounded.onnx")
        return compare_detections(reference, detections_of(tmp_path / "rounded.onnx", frames))

    found = agreement()
    assert found.reference_count > 50
    assert found.f1 > 0.99
    assert found.box_iou > 0.999
    assert found.mask_iou > 0.998
    assert 1e-6 < found.score_shift < 4e-4
    monkeypatch.setattr(fp16_choice, "_float32_nodes", lambda _: set())
    worse = agreement()
    assert worse.box_iou < 0.999


def test_predict_and_run_take_it(half_model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), np.full((96, 128, 3), 90, np.uint8))
    assert main(["-q", "predict", str(half_model), str(picture), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "results.json").exists()
    assert main(["-q", "run", str(half_model), str(picture), "--json", str(tmp_path / "a.jsonl")]) == 0
    assert (tmp_path / "a.jsonl").read_text()


@pytest.fixture
def half_model(deployable: Make, tmp_path: Path) -> Path:
    quantize_fp16(deployable(), tmp_path / "half.onnx")
    return tmp_path / "half.onnx"
