"""Layers of TensorRT: of which part they are, what they do, and that none is lost or counted twice."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cuda.fake_cuda import FakeDevice
from tests.cuda.fake_engine import FakeContext, FakeEngine, picture
from tests.profiler.layer_sums import macs_by_part
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.errors import DataError
from trt_blendmask.profiler.layers import profile_of, sentence
from trt_blendmask.profiler.layers.inspector import Timed, layer_infos, layers_of
from trt_blendmask.profiler.layers.parts import fine_part, names_in, part_of_names
from trt_blendmask.profiler.layers.tensorrt import layer_clock, tensorrt_layers
from trt_blendmask.profiler.report import LayerProfile

DATA = Path(__file__).with_name("data")
# Of the model in data/README.md, by `count_macs`.
RECORDED = {
    "backbone": 197099520,
    "fpn": 17776640,
    "towers": 46448640,
    "predictors": 3628800,
    "basis": 86589440,
    "top_layer": 451584,
    "tail": 395136,
}


def recorded(precision: str) -> str:
    return lzma.decompress((DATA / f"rtx_1_7_{precision}.json.xz").read_bytes()).decode()


def once(text: str) -> list[Timed]:
    """A millisecond for each layer."""
    return [(info.name, 1.0, 0.0) for info in layer_infos(text)]


def profiled(text: str, times: list[Timed], macs: dict[str, int] | None = None) -> LayerProfile:
    return profile_of("TensorRT", 1, 0.0, layers_of(layer_infos(text), times, macs))


@pytest.mark.parametrize(("precision", "of_products"), [("fp32", "FP32"), ("fp16", "FP16"), ("int8", "INT8")])
def test_recorded_layers_of_tensorrt_rtx(precision: str, of_products: str) -> None:
    text = recorded(precision)
    profile = profiled(text, once(text))
    found = macs_by_part(profile)
    assert found.keys() == RECORDED.keys()
    for part, macs in RECORDED.items():  # TensorRT fills channels up to 4 and products to 8: what it runs is more
        room = {"backbone": 1.05, "tail": 1.15}.get(part, 1.0) if precision != "fp32" or part == "tail" else 1.0
        assert macs <= found[part] <= room * macs
    work = Counter[str]()
    for layer in profile.layers:
        work[layer.precision] += layer.macs
    assert work.most_common(1)[0][0] == of_products
    assert {layer.op for layer in profile.layers if layer.part == "other"} <= {"signal", "wait"}
    assert all(layer.shape and layer.bytes for layer in profile.layers if layer.macs)
    assert {"selection.nms", "selection.decode", "backbone.images"} < {layer.part for layer in profile.layers}


def test_work_of_the_model_goes_to_one_layer_each() -> None:
    text = recorded("fp16")
    names = [name for info in layer_infos(text) for name in info.names]
    macs = {name: 1000 + index for index, name in enumerate(dict.fromkeys(names))}
    profile = profiled(text, once(text), macs)
    assert sum(layer.macs for layer in profile.layers) == sum(macs.values())


def test_form_of_10() -> None:
    text = (DATA / "inspector_10.json").read_text()
    layers = profiled(text, once(text)).layers
    assert [layer.part for layer in layers] == [
        *("backbone.stem", "backbone.stem", "backbone.stem", "backbone.res2"),  # a reformat is of what made its input
        *("towers", "selection.decode", "tail"),
    ]
    assert [layer.precision for layer in layers] == ["FP16", "FP16", "INT8", "INT8", "FP16", "FP32", "FP32"]
    assert [layer.is_reformat for layer in layers] == [True, False, True, False, False, False, False]
    assert [layer.macs for layer in layers] == [0, 32 * 64 * 80 * 3 * 49, 0, 32 * 64 * 80 * 32 * 9, 0, 0, 0]
    assert layers[1].shape == (1, 32, 64, 80)
    assert layers[1].bytes == 2 * (3 * 128 * 160 + 32 * 64 * 80 + 4704) + 4 * 32
    assert layers[1].kernel.startswith("sm80_xmma_fprop")


def test_both_forms_say_the_same() -> None:
    """The recorded layers, rewritten as 10.x would tell them."""
    values = json.loads(recorded("fp16"), strict=False)
    for layer in values["Layers"]:
        for tensor in (*layer["Inputs"], *layer["Outputs"], *layer["Constants"]):
            tensor["Format/Datatype"] = f"{tensor.pop('Format')} {tensor.pop('Datatype')}"
    values["Bindings"] = [tensor["Name"] for tensor in values.pop("I/O Tensors")]
    new = recorded("fp16")
    assert profiled(json.dumps(values), once(new)) == profiled(new, once(new))


def test_names_only_and_layers_that_nobody_listed() -> None:
    text = json.dumps({"Layers": ["backbone.res2.0.conv1 + backbone.res2.0.relu", "nms.row1.first"]})
    profile = profiled(text, [*once(text), ("tail.blended", 2.0, 0.0), ("something new", 1.0, 0.0)])
    assert [layer.part for layer in profile.layers] == ["backbone.res2", "selection.nms", "tail", "other"]
    assert [layer.share for layer in profile.layers] == [0.2, 0.2, 0.4, 0.2]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"Layers": 3}', "[" * 100000, '{"layers": []}', "\x00", "null"])
def test_something_else(text: str) -> None:
    with pytest.raises(DataError, match="Expected"):
        layer_infos(text)


def test_fields_of_other_kinds_do_no_harm() -> None:
    rows: list[Any] = [None, 3, {}, {"Name": 5, "Inputs": "x", "Outputs": [3], "Weights": [], "Metadata": 1}]
    rows += [{"Name": "conv", "LayerType": "Conv", "Kernel": [3, -1], "Groups": 0}]
    bad = {"Dimensions": [-1, "x"], "Format/Datatype": 7}
    rows += [{"Name": "conv2", "LayerType": "Conv", "Inputs": [bad], "Outputs": [{"Dimensions": [2, -1, 3]}]}]
    shapes = [{"Dimensions": [1, 2**40, 2**40, 3], "Datatype": "Half"}]
    rows += [{"Name": "gemm", "LayerType": "gemm", "Inputs": shapes * 2, "Outputs": shapes, "TacticName": None}]
    text = json.dumps({"Layers": rows})
    assert len(profiled(text, once(text)).layers) == len(rows)


def test_parts_of_names() -> None:
    assert fine_part("/m/backbone/bottom_up/res4/res4.2/conv1/Conv") == "backbone.res4"
    assert fine_part("n12", ["x", "backbone.res3.0.conv1.weight"]) == "backbone.res3"
    assert fine_part("Conv_3") == ""
    assert names_in("PWN(PWN(a.b), c) + {ForeignNode[d...e]} || f") == ["PWN", "a.b", "c", "ForeignNode", "d", "e", "f"]
    assert names_in("__myl_x", "[ONNX Layer: a b]\x1f[ONNX Layer: c]") == ["a b", "c"]
    names = ["tail.a", "tail.b", "basis.tower.0"]
    assert part_of_names(names, {}) == "tail"
    assert part_of_names(names, {"basis.tower.0": 5}) == "basis"
    assert part_of_names(["ForeignNode", "x"], {}) == ""


class ProfiledContext(FakeContext):
    """Tells a profiler of three layers at each enqueue."""

    profiler: Any = None

    def execute_async_v3(self, handle: int) -> bool:
        done = super().execute_async_v3(handle)
        if self.profiler is not None:
            for name, ms in (("backbone.res2.0.conv1", 0.5), ("reformat", 0.25), ("reformat", 0.125)):
                self.profiler.report_layer_time(name, ms)
        return done


class InspectedEngine(FakeEngine):
    """With layers."""

    def context(self, own_graphs: bool = False) -> FakeContext:
        context = ProfiledContext(self, own_graphs)
        self._contexts.add(context)
        return context

    def layer_information(self) -> str:
        kinds = {"backbone.res2.0.conv1": "CaskConvolution", "reformat": "Reformat"}
        rows = [("backbone.res2.0.conv1", "a"), ("reformat", "b"), ("reformat", "c")]
        return json.dumps({"Layers": [{"Name": n, "LayerType": kinds[n], "Outputs": [{"Name": o}]} for n, o in rows]})


@pytest.mark.parametrize("integrated", [False, True])
def test_profiler_of_an_engine(integrated: bool) -> None:
    device = FakeDevice(integrated=integrated)
    engine = InspectedEngine(device)
    engine.flavor = SimpleNamespace(name="tensorrt", title="TensorRT 10.13", module=MODULE)  # type: ignore[assignment]
    session = TensorRtSession(engine, device)  # type: ignore[arg-type]
    before = len(device.live)
    profile = tensorrt_layers(session, [picture(3), picture(5)], runs=6)
    assert len(device.live) == before, "something was not freed"
    assert [(layer.name, layer.ms) for layer in profile.layers] == [
        ("backbone.res2.0.conv1", 0.5),
        ("reformat", 0.25),
        ("reformat", 0.125),
    ]
    assert (profile.tool, profile.runs, profile.profiled_ms) == ("TensorRT", 6, 0.875)
    session.close()
    assert not device.live


MODULE = SimpleNamespace(IProfiler=type("IProfiler", (), {}))


def test_a_clock_forgets_what_came_before_the_first_run() -> None:
    clock = layer_clock(MODULE)
    clock.report_layer_time("early", 1.0)
    clock.begin()
    clock.report_layer_time("a", 1.0)
    assert clock.runs == [[("a", 1.0)]]


def test_a_profile_in_a_sentence() -> None:
    profile = profile_of(
        "ONNX Runtime", 3, 2.0, layers_of(layer_infos((DATA / "inspector_10.json").read_text()), TIMED)
    )
    assert sentence(profile) == "3 layers take 1.90 of 2.00 ms (gap +5.0%), reformats 0.40 ms"


@pytest.mark.parametrize(
    ("given", "weights", "made", "macs"),
    [
        ((2, 3), (3, 5), (2, 5), 30),
        ((2, 3), (5, 3), (2, 5), 30),  # transposed
        ((1, 100, 64), (64, 32), (1, 100, 32), 100 * 64 * 32),
        ((8, 100, 64), (8, 64, 32), (8, 100, 32), 8 * 100 * 64 * 32),
        ((4, 8, 100, 64), (1, 8, 64, 32), (4, 8, 100, 32), 4 * 8 * 100 * 64 * 32),
        ((100, 64), (8, 64, 32), (8, 100, 32), 8 * 100 * 64 * 32),
        ((1, 64, 1, 1), (32, 64, 1, 1), (1, 32, 1, 1), 64 * 32),  # weights as those of a convolution
    ],
)
def test_work_of_a_product_by_its_shapes(
    given: tuple[int, ...], weights: tuple[int, ...], made: tuple[int, ...], macs: int
) -> None:
    def end(shape: tuple[int, ...]) -> dict[str, Any]:
        return {"Name": "x", "Dimensions": list(shape), "Format/Datatype": "Half"}

    layer = {"Name": "m", "LayerType": "MatrixMultiply", "Inputs": [end(given), end(weights)], "Outputs": [end(made)]}
    assert profiled(json.dumps({"Layers": [layer]}), [("m", 1.0, 0.0)]).layers[0].macs == macs


TIMED = [("backbone.stem.conv1 + backbone.stem.relu", 1.0, 0.0), ("backbone.res2.0.conv1.q", 0.4, 0.0)]
TIMED += [("tail.roi_align_blend", 0.5, 0.0)]
