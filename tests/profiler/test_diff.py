"""Two profiles: what changed is found, with its cause, and what did not change is not called a change."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.profiler import made_up
from trt_blendmask.profiler.diff import Diff, ModelDiff, diff, environment_changes, sentences
from trt_blendmask.profiler.diff_layers import changes_of, parts_of
from trt_blendmask.profiler.layers import profile_of
from trt_blendmask.profiler.layers.inspector import layer_infos, layers_of
from trt_blendmask.profiler.report import Environment, Layer, ModelProfile, ProfileReport, Span

DATA = Path(__file__).with_name("data")
ENVIRONMENT = made_up.environment()
ROUNDS, FRAMES = 30, 5


def layer(name: str, ms: float, precision: str = "FP16", **other: object) -> Layer:
    reformat = name.startswith("Reformatting")
    part = name.replace("Reformatting CopyNode for Input Tensor 0 to ", "").split(" + ")[0].rsplit(".", 1)[0]
    macs = 0 if reformat else 1000
    given = Layer(name, part, "conv", precision, (1, 8), macs, 100, ms, 0.0, None, reformat, "kernel1", ms / 200)
    return replace(given, **other)  # type: ignore[arg-type]


LAYERS = (
    layer("backbone.res2.a + backbone.res2.b", 2.0),
    layer("backbone.res3.a", 1.0),
    layer("Reformatting CopyNode for Input Tensor 0 to backbone.res3.a", 0.1),
    layer("fpn.a", 1.0),
    layer("towers.a", 1.0),
    layer("towers.b", 1.0),
    layer("tail.a", 0.5),
)


def model(
    layers: tuple[Layer, ...] = LAYERS, seed: int = 0, label: str = "m.onnx", scatter: float = 0.03
) -> ModelProfile:
    """Whose frames take as long as its layers together."""
    total = sum(each.ms for each in layers)
    times = total * np.random.default_rng(seed).normal(1, scatter, ROUNDS * FRAMES)
    rounds = np.repeat(np.arange(ROUNDS), FRAMES)
    return replace(
        made_up.report().models[0],
        label=label,
        times={"network": times.tolist()},
        rounds={"network": rounds.tolist()},
        layers=profile_of("TensorRT", 20, total, layers),
        conditions={"CPU MHz": Span(2900, 3000, 3100)},
        warnings=(),
    )


def report(*models: ModelProfile) -> ProfileReport:
    return ProfileReport("trt-blendmask profile m.onnx", "2026-11-22T10:00:00+00:00", ENVIRONMENT, "x", models)


def of(after: tuple[Layer, ...]) -> ModelDiff:
    found = diff(report(model()), report(model(after, seed=1)))
    assert len(found.models) == 1
    return found.models[0]


def changed(layers: tuple[Layer, ...], name: str, **fields: object) -> tuple[Layer, ...]:
    return tuple(replace(each, **fields) if each.name == name else each for each in layers)  # type: ignore[arg-type]


def differing(found: ModelDiff) -> list[str]:
    return [part.part for part in found.parts if part.differs]


def test_nothing_changed() -> None:
    one = report(model())
    found = diff(one, one)
    assert not found.models[0].differs
    assert not found.models[0].causes
    assert not differing(found.models[0])
    assert not found.environment
    assert "no difference beyond the noise" in sentences(found)[0]


def test_no_difference_is_seldom_called_one() -> None:
    """Independent runs of the same: few are called a difference, and no layer of any is."""
    called = [diff(report(model(seed=2 * k)), report(model(seed=2 * k + 1))).models[0] for k in range(40)]
    assert sum(each.differs for each in called) <= 2
    assert not any(differing(each) for each in called)


@pytest.mark.parametrize(("factor", "differs"), [(1.01, False), (1.1, True), (0.9, True)])
def test_a_slow_down(factor: float, differs: bool) -> None:
    found = of(tuple(replace(each, ms=each.ms * factor) for each in LAYERS))
    assert found.differs is differs
    assert found.ratio is not None
    assert found.low < factor < found.high
    assert bool(differing(found)) is differs


@pytest.mark.parametrize(("shared_ms", "differs"), [(0.0, True), (5e-4, False)])
def test_what_was_taken_off_each_layer_errs_in_all_of_them(shared_ms: float, differs: bool) -> None:
    """Thousands of small layers, all longer by as much as one error of each: it adds up."""
    before, after = (
        profile_of("ONNX Runtime", 20, 0.0, [layer(f"selection.nms.{k}", ms, error_ms=1e-4) for k in range(2000)])
        for ms in (1e-3, 1.5e-3)
    )
    changes = changes_of(*(replace(one, shared_error_ms=shared_ms) for one in (before, after)), 0.01)
    assert parts_of(changes, ({}, {}), 0.01)[0].differs is differs


def test_a_reformat_added() -> None:
    found = of((*LAYERS, layer("Reformatting CopyNode for Input Tensor 0 to fpn.a", 0.8, part="fpn")))
    assert differing(found) == ["fpn"]
    assert found.parts[0].causes == ("1 x reformat added (+0.800 ms)",)
    assert (found.parts[0].reformat_one_ms, found.parts[0].reformat_other_ms) == (0, 0.8)
    assert found.causes == ("fpn: 1 x reformat added (+0.800 ms)",)
    assert found.differs


def test_a_layer_back_in_fp32() -> None:
    found = of(changed(LAYERS, "towers.b", precision="FP32", ms=2.0, kernel="kernel32"))
    assert differing(found) == ["towers"]
    assert found.parts[0].causes == ("1 x back in FP32 (+1.000 ms)",)
    worst = found.layers[0]
    assert worst.names_one == worst.names_other == ("towers.b",)
    assert "back in FP32; another kernel" in worst.sentence()
    assert found.layers[0].differs
    assert not any(each.differs for each in found.layers[1:])


def test_a_layer_now_in_int8() -> None:
    found = of(changed(LAYERS, "towers.b", precision="INT8", ms=0.5))
    assert found.parts[0].causes == ("1 x now in INT8 (-0.500 ms)",)


def test_a_fusion_lost() -> None:
    after = (layer("backbone.res2.a", 2.0), layer("backbone.res2.b", 1.0), *LAYERS[1:])
    found = of(after)
    assert differing(found) == ["backbone.res2"]
    assert found.parts[0].causes == ("1 x fusion lost (+1.000 ms)",)
    assert found.layers[0].names_other == ("backbone.res2.a", "backbone.res2.b")
    back = diff(report(model(after)), report(model(seed=3))).models[0]
    assert back.parts[0].causes == ("1 x fused (-1.000 ms)",)


def test_another_kernel_and_more_work() -> None:
    assert of(changed(LAYERS, "fpn.a", kernel="k2", ms=1.6)).parts[0].causes == ("1 x another kernel (+0.600 ms)",)
    assert of(changed(LAYERS, "fpn.a", macs=4000, ms=1.6)).parts[0].causes == ("1 x other work (+0.600 ms)",)


def test_the_machine_is_slower() -> None:
    slow = replace(
        model(tuple(replace(each, ms=1.5 * each.ms) for each in LAYERS), 1),
        conditions={"CPU MHz": Span(1900, 2000, 2100)},
    )
    other = replace(report(slow), environment=replace(ENVIRONMENT, governor="powersave", load="much"))
    found = diff(report(model()), other)
    assert [what for what, _, _ in found.environment] == ["governor"]
    causes = " | ".join(found.models[0].causes)
    assert "clocks: CPU MHz 3000 -> 2000" in causes
    assert "all layers changed by about the same factor" in causes
    assert "powersave" in causes
    assert any("powersave" in line for line in sentences(found))


def test_other_models_are_allowed_and_said() -> None:
    one = report(model(label="a"), model(label="b"))
    found = diff(one, report(model(label="b"), replace(model(label="c"), sha256="1" * 64)))
    assert [(each.one, each.other) for each in found.models] == [("b", "b")]
    assert found.missing == ("a is only in the profile before", "c is only in the profile after")
    single = diff(report(model(label="a")), report(replace(model(label="z"), precision="INT8", sha256="2" * 64)))
    notes = " | ".join(single.models[0].notes)
    assert "another file" in notes
    assert "another precision: " in notes
    same, new = replace(model(label="x"), sha256="3" * 64), replace(model(label="y"), sha256="4" * 64)
    renamed = diff(report(model(label="a"), replace(same, label="b")), report(same, new))
    assert [(each.one, each.other) for each in renamed.models] == [("b", "x")]


def test_not_timed_or_only_layers() -> None:
    bare = replace(model(), times={}, rounds={})
    found = diff(report(bare), report(replace(bare, layers=None, error="it is wrong"))).models[0]
    assert (found.ratio, found.differs) == (None, False)
    assert "not timed after: it is wrong" in found.notes
    only = diff(report(bare), report(bare)).models[0]
    assert (only.metric, only.ratio, only.differs) == ("layers", 1.0, False)
    few = replace(model(), rounds={"network": [0] * ROUNDS * FRAMES})
    slower = replace(few, times={"network": [3 * ms for ms in few.times["network"]]})
    cut = diff(report(few), report(slower))
    assert cut.models[0].sentence().endswith("ms: too few rounds to tell a difference from noise")
    assert not any("no difference" in line or "did not change" in line for line in sentences(cut))


def test_recorded_engines_in_fp32_and_int8() -> None:
    """Real layers of two builds of one network; times made up from their bytes."""

    def profiled(name: str) -> ModelProfile:
        infos = layer_infos(lzma.decompress((DATA / f"rtx_1_7_{name}.json.xz").read_bytes()))
        bare = layers_of(infos, [(info.name, 0.0, 0.0) for info in infos])
        layers = tuple(replace(each, ms=each.bytes / 1e6, error_ms=each.bytes / 1e9) for each in bare)
        return replace(model(), times={}, rounds={}, layers=profile_of("TensorRT", 9, 1.0, layers))

    found: Diff = diff(report(profiled("fp32")), report(profiled("int8")))
    parts = {part.part: part for part in found.models[0].parts if part.differs}
    for name in ("backbone.res3", "backbone.res4", "backbone.res5", "fpn", "towers", "basis"):
        assert "now in INT8" in parts[name].causes[0]
        assert parts[name].reformat_one_ms <= parts[name].reformat_other_ms
    assert "now in FP16" in parts["predictors"].causes[0]
    assert sum(change.one_ms for change in found.models[0].layers) == pytest.approx(found.models[0].one_ms)
    assert sum(change.other_ms for change in found.models[0].layers) == pytest.approx(found.models[0].other_ms)


def test_what_is_never_twice_the_same_is_no_cause() -> None:
    """The clock of the moment before the run, and a memory that the kernel counts anew at each start."""
    before = Environment(clocks=("CPU 2100 MHz (800 to 3000)",), memory_bytes=8_203_063_296, load="1")
    after = replace(before, clocks=("CPU 1900 MHz (800 to 3000)",), memory_bytes=8_203_059_200, load="2")
    assert environment_changes(before, after) == ()
    more = replace(after, memory_bytes=16 << 30, governor="powersave")
    assert environment_changes(before, more) == (
        ("memory_bytes", "7.6 GiB", "16.0 GiB"),
        ("governor", "-", "powersave"),
    )
