"""Layers in ONNX Runtime: of which part they are, what they do, and that none is lost or counted twice."""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.profiler.layer_sums import macs_by_part
from tests.quantize.networks import table_of
from tests.quick_model import quick_model
from trt_blendmask.errors import OutputError
from trt_blendmask.profiler.layers import onnxruntime as ours
from trt_blendmask.profiler.layers import under_roof
from trt_blendmask.profiler.layers.onnxruntime import RecordingCost, onnxruntime_layers, recording_cost
from trt_blendmask.profiler.layers.trace import Run, calm_half, mean_times, runs_in
from trt_blendmask.profiler.report import Roof
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.quantize.int8 import quantize_int8
from trt_blendmask.quantize.onnxruntime_form import to_onnxruntime
from trt_blendmask.surgery.macs import count_macs

HW = (128, 160)


@pytest.fixture(autouse=True)
def _known_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of recording a node; to measure it takes a second."""
    monkeypatch.setattr(ours, "recording_cost", lambda _threads: RecordingCost(8.0, 0.5))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled network in FP32, FP16, and INT8 in both forms."""
    folder, plain = tmp_path_factory.mktemp("models"), quick_model(HW)
    paths = {"fp32": plain, **{name: folder / f"{name}.onnx" for name in ("fp16", "int8", "int8_onnxruntime")}}
    quantize_fp16(plain, paths["fp16"])
    model = onnx.load(plain)
    quantised = quantize_int8(model, table_of(model))
    onnx.save(quantised, paths["int8"])
    to_onnxruntime(quantised)
    onnx.save(quantised, paths["int8_onnxruntime"])
    return paths


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int8_onnxruntime"])
def test_all_work_is_in_its_part(models: dict[str, Path], name: str) -> None:
    images = np.random.default_rng(0).integers(0, 255, (1, *HW, 3), np.uint8)
    profile = onnxruntime_layers(models[name], [images], runs=4)
    expected = {part: macs for part, macs in count_macs(onnx.load(models[name])).items() if macs}
    assert macs_by_part(profile) == expected
    assert {f"backbone.{stage}" for stage in ("stem", "res2", "res3", "res4", "res5")} < {
        x.part for x in profile.layers
    }
    assert "other" not in {layer.part for layer in profile.layers}
    assert profile.sum_ms == pytest.approx(sum(layer.ms for layer in profile.layers))
    assert sum(layer.share for layer in profile.layers) == pytest.approx(1)
    assert profile.gap == pytest.approx(1 - profile.sum_ms / profile.whole_ms)
    multiplied = Counter[str]()
    for layer in profile.layers:
        multiplied[layer.precision] += layer.macs
    integer = multiplied["INT8"] / multiplied.total()
    assert integer > 0.5 if name == "int8_onnxruntime" else integer == 0
    if name.startswith("int8"):
        assert sum(layer.is_reformat for layer in profile.layers) > 10


def test_time_is_where_the_work_is(tmp_path: Path) -> None:
    """One part is given 100 times the work of another, under names that ONNX Runtime changes."""
    weights = {"backbone.res2.w": (64, 64, 1, 1), "basis.w": (64, 64, 9, 9)}
    nodes = [
        helper.make_node("Conv", ["images", "backbone.res2.w"], ["a"], "n1"),
        helper.make_node("Relu", ["a"], ["b"], "n2"),
        helper.make_node("Conv", ["b", "basis.w"], ["c"], "n3", pads=[4, 4, 4, 4]),
        helper.make_node("Relu", ["c"], ["y"], "n4"),
    ]
    path = saved(nodes, weights, (1, 64, 48, 48), tmp_path)
    profile = onnxruntime_layers(path, [np.ones((1, 64, 48, 48), np.float32)], runs=10)
    ms = Counter[str]()
    for layer in profile.layers:
        ms[layer.part] += layer.ms
    assert set(ms) == {"backbone.res2", "basis"}
    assert ms["basis"] > 10 * ms["backbone.res2"]
    convolutions = {layer.part: layer for layer in profile.layers if layer.macs}
    assert convolutions["basis"].macs == 64 * 64 * 81 * 48 * 48
    assert convolutions["basis"].shape == (1, 64, 48, 48)
    assert convolutions["basis"].bytes == 4 * (2 * 64 * 48 * 48 + 64 * 64 * 81)
    under = under_roof(profile, Roof({"FP32": 1e-3}, 1e3, "made up"))
    assert {layer.roof_share for layer in under.layers if layer.macs} == {1.0}
    assert under.roof is not None


def test_what_is_inside_a_loop_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "tail.w"], ["next"], "tail.inside"),
            helper.make_node("Identity", ["go"], ["goes"], "tail.go"),
        ],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in BODY_ENDS],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    nodes = [helper.make_node("Loop", ["times", "yes", "images"], ["y"], "tail.loop", body=body)]
    path = saved(nodes, {"tail.w": (256, 256)}, (256, 256), tmp_path)
    traced, calm = list[Run](), ours.calm_half
    monkeypatch.setattr(ours, "calm_half", lambda runs: traced.extend(runs) or calm(runs))
    profile = onnxruntime_layers(path, [np.ones((256, 256), np.float32)], runs=6)
    assert [layer.op for layer in profile.layers] == ["Loop"]
    assert all(sum(event.us for event in run.events) <= run.us for run in traced)


def test_cost_of_recording_is_taken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nodes that take nothing: all that is counted is the cost."""
    names = ["images", *(f"x{i}" for i in range(300)), "y"]
    nodes = [helper.make_node("Exp", [a], [b], f"tail.{b}") for a, b in pairwise(names)]
    path, images = saved(nodes, {}, (1,), tmp_path), [np.zeros(1, np.float32)]
    medians = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(ours, "recording_cost", lambda _threads, share=share: RecordingCost(8.0, share))
        layers = onnxruntime_layers(path, images, threads=1).layers
        medians.append(np.median([layer.ms for layer in layers]))
    assert medians[1] < 0.5 * medians[0]


def test_cost_that_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run takes 50 ms longer with the profiler on: that was something else, and no node is taken for nothing."""
    nodes = [helper.make_node("MatMul", ["images", "tail.w"], ["y"], "m")]
    path, images = saved(nodes, {"tail.w": (256, 256)}, (256, 256), tmp_path), [np.ones((256, 256), np.float32)]
    calm = ours.calm_half
    monkeypatch.setattr(ours, "calm_half", lambda runs: [replace(run, us=run.us + 5e4) for run in calm(runs)])
    assert onnxruntime_layers(path, images).sum_ms > 0


def test_cost_of_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_CHAIN", 200)
    recording_cost.cache_clear()
    cost = recording_cost(1)
    assert 0.5 < cost.us < 1000
    assert 0.05 < cost.counted < 1  # 0.5 on a calm machine
    recording_cost.cache_clear()


def test_trace(tmp_path: Path) -> None:
    """Three runs of two nodes, the second with a node that others are inside of, and a line that is no JSON."""

    def node(name: str, begin: int, us: int) -> str:
        sizes = '"activation_size" : "100", "parameter_size" : "20", "output_size" : "3"'
        ends = '"input_type_shape" : [{"float16":[1,2]},{"uint8":[]}], "output_type_shape" : [{"float":[4]}]'
        args = f'{{"op_name" : "Op", {sizes}, {ends}}}'
        return f'{{"cat" : "Node","dur" :{us},"ts" :{begin},"name" :"{name}_kernel_time","args" : {args}}},'

    def run(begin: int, us: int) -> str:
        return f'{{"cat" : "Session","dur" :{us},"ts" :{begin},"name" :"model_run","args" : {{}}}},'

    lines = [
        "[",
        *(node("a", 0, 10), node("b", 12, 30), run(0, 50)),
        *(node("inside", 105, 3), node("a", 100, 20), node("b", 122, 34), run(100, 60)),
        *(node("a", 200, 90), node("b", 292, 30), node('c"', 330, 1), run(200, 500)),
        "]",
    ]
    (tmp_path / "trace.json").write_text("\n".join(lines))
    runs = list(runs_in(tmp_path / "trace.json"))
    assert [run.us for run in runs] == [50, 60, 500]
    assert [event.name for run in runs for event in run.events] == ["a", "b"] * 3
    first = runs[0].events[0]
    assert (first.op, first.bytes) == ("Op", 123)
    assert (first.input_types, first.input_shapes) == (("FP16", "UINT8"), ((1, 2), ()))
    assert (first.output_types, first.output_shapes) == (("FP32",), ((4,),))
    times = mean_times(calm_half(runs))
    assert [(name, us) for name, (_, us, _) in times.items()] == [("a", 15.0), ("b", 32.0)]
    assert [error for *_, error in times.values()] == pytest.approx([5.0, 2.0])


def test_what_nothing_tells_is_of_what_it_leads_to(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["images"], ["a"], "n"), helper.make_node("MatMul", ["a", "tail.w"], ["y"], "m")]
    profile = onnxruntime_layers(saved(nodes, {"tail.w": (8, 8)}, (8, 8), tmp_path), [np.ones((8, 8), np.float32)])
    assert {layer.part for layer in profile.layers} == {"tail"}


def test_no_room_for_what_onnx_runtime_writes(models: dict[str, Path]) -> None:
    images, (soft, hard) = np.zeros((1, *HW, 3), np.uint8), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OutputError, match=r"Expected room for ONNX Runtime's profile .* TMPDIR"):
            onnxruntime_layers(models["fp32"], [images], runs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_fault_of_ours_is_no_lack_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "Origin", lambda *_: [][1])
    path = saved([helper.make_node("MatMul", ["images", "tail.w"], ["y"], "m")], {"tail.w": (8, 8)}, (8, 8), tmp_path)
    with pytest.raises(IndexError):
        onnxruntime_layers(path, [np.ones((8, 8), np.float32)], runs=1)


BODY_ENDS = (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("state", TensorProto.FLOAT, [256, 256]))


def saved(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], shape: Any, folder: Path) -> Path:
    constants = [numpy_helper.from_array(np.full(side, 1e-3, np.float32), name) for name, side in weights.items()]
    constants += [numpy_helper.from_array(np.array(20), "times"), numpy_helper.from_array(np.array(True), "yes")]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"
