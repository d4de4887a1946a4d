"""`engines.operation.build` against a TensorRT that does what it is told; see fake_tensorrt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.engines import tiny
from tests.engines.conftest import GPU
from trt_blendmask.bundled import bundled_model
from trt_blendmask.engines.device import Device
from trt_blendmask.engines.operation import build
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.parity import measure
from trt_blendmask.engines.passport import passport_path, read_passport
from trt_blendmask.engines.progress import BuildTimes, Progress
from trt_blendmask.errors import (
    DataError,
    SourceUnavailableError,
    TrtBlendMaskError,
    UsageError,
)
from trt_blendmask.structures import TABLE_MARK

Calls = Callable[[], list[str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "model.onnx")


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("version", ["10.0.1", "11.4.1"])
def test_engine_and_passport(model: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", version)
    told: list[Progress] = []
    info = build(model, progress=told.append)
    engine = model.with_suffix(".engine")
    assert read_passport(passport_path(engine)) == info
    assert info.plan_sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert info.plan_bytes == engine.stat().st_size
    assert (info.onnx_sha256, info.onnx_path) == (hashlib.sha256(model.read_bytes()).hexdigest(), "model.onnx")
    assert (info.flavor, info.tensorrt_version, info.options) == ("tensorrt", version, {})
    assert (info.compute_capability, info.device_name) == (GPU.compute_capability, GPU.name)
    assert (info.driver, info.cuda_version) == (GPU.driver, GPU.cuda_version)
    assert (info.plugin_sha256, info.table_sha256, info.parity) == ("", "", "pretended")
    assert [(s.name, s.dtype, s.shape) for s in info.inputs] == [("images", "uint8", (1, 64, 96, 3))]
    assert [s.name for s in info.outputs] == ["count", "boxes", "scores", "classes", "masks"]
    assert info.spec == tiny.SPEC
    assert max(p.peak_mib for p in told) > 10
    assert sorted(p.name for p in model.parent.glob(".*")) == []


@pytest.mark.usefixtures("calls")
def test_table_of_an_int8_model(tmp_path: Path) -> None:
    model = tiny.write(tmp_path / "model.onnx", doc=f"{TABLE_MARK}{'5' * 64}")
    assert build(model).table_sha256 == "5" * 64


REFUSED: dict[str, tuple[type[TrtBlendMaskError], tuple[str, ...]]] = {
    "no-driver": (SourceUnavailableError, ("driver", "trt-blendmask doctor")),
    "no-builder": (SourceUnavailableError, ("does not start", "trt-blendmask doctor")),
    "abort": (TrtBlendMaskError, ("SIGABRT", "std::out_of_range")),
    "crash": (TrtBlendMaskError, ("SIGSEGV", "Building engine")),
    "killed": (SourceUnavailableError, ("memory", "--workspace")),
    "parse-silent": (DataError, ("does not read", "gives no reason", "surgery raw.onnx")),
    "none": (DataError, ("does not build", "gives no reason", "surgery raw.onnx")),
}


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("how", REFUSED)
def test_each_way_to_fail(model: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", how)
    engine = model.with_suffix(".engine")
    engine.write_bytes(b"the old one")
    kind, words = REFUSED[how]
    with pytest.raises(kind) as caught:
        build(model)
    assert type(caught.value) is kind
    assert all(word in str(caught.value) for word in (*words, "TensorRT 10.13.3.9" if how != "killed" else ""))
    assert "\n" not in str(caught.value)
    assert engine.read_bytes() == b"the old one"
    assert not passport_path(engine).exists()
    assert [p for p in model.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.usefixtures("calls")
def test_what_the_library_prints_does_not_get_between(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", "chatter")
    assert build(model).plan_bytes > 1000


def test_all_options_arrive(calls: Calls, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_DLA", "2")
    options = BuildOptions(
        workspace_mib=256,
        opt_level=0,
        version_compatible=True,
        exclude_lean=True,
        hardware_compatible="ampere+",
        dla=0,
    )
    info = build(model, options=options)
    assert {
        "set_memory_pool_limit WORKSPACE 268435456",
        "builder_optimization_level 0",
        "set_flag VERSION_COMPATIBLE",
        "set_flag EXCLUDE_LEAN_RUNTIME",
        "set_flag GPU_FALLBACK",
        "hardware_compatibility_level HardwareCompatibilityLevel.AMPERE_PLUS",
        "DLA_core 0",
        "default_device_type DeviceType.DLA",
    } <= set(calls())
    assert info.options == {
        "workspace_mib": 256,
        "opt_level": 0,
        "version_compatible": True,
        "exclude_lean": True,
        "hardware_compatible": "ampere+",
        "dla": 0,
    }
    assert BuildOptions.from_json({**options.to_json(), **info.options}) == options


def test_open_batch(calls: Calls, tmp_path: Path) -> None:
    model = tiny.write(tmp_path / "model.onnx", batch="n")
    with pytest.raises(DataError, match="--profile"):
        build(model)
    info = build(model, options=BuildOptions(profile=(1, 2, 4)))
    assert info.inputs[0].shape == (-1, 64, 96, 3)
    (shapes,) = [line for line in calls() if line.startswith("add_optimization_profile")]
    assert "(1, 64, 96, 3), (2, 64, 96, 3), (4, 64, 96, 3)" in shapes


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"profile": (1, 1, 1)}, UsageError, "leave --profile out"),
    ({"compute_capability": ("8.6",)}, UsageError, "--flavor rtx"),
    ({"hardware_compatible": "same-compute-capability"}, SourceUnavailableError, "ampere"),
    ({"dla": 0}, SourceUnavailableError, "has none: leave --dla out"),
    ({"embed_plugin": True}, UsageError, "has no plugin"),
    ({"plugin": Path("x.so")}, UsageError, "has no plugin"),
]


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(("given", "kind", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_options_that_do_not_fit(model: Path, given: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        build(model, options=BuildOptions(**given))
    assert not model.with_suffix(".engine").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"opt_level": 6},
        {"workspace_mib": 0},
        {"profile": (2, 1, 4)},
        {"compute_capability": ("86",)},
        {"compute_capability": ("current", "8.6")},
        {"exclude_lean": True},
        {"dla": -1},
        {"hardware_compatible": "all"},
        {"flavor": "lean"},
    ],
    ids=str,
)
def test_options_out_of_range(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BuildOptions(**given)


@pytest.mark.usefixtures("calls")
def test_what_was_built_meanwhile_for_another_gpu_is_not_taken(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines that share a home."""
    monkeypatch.setattr("trt_blendmask.engines.operation.hold", lambda *_: nullcontext(True))
    first = build(model)
    assert build(model) == first, "the very same is taken"
    other = Device("Another GPU", "8.9", "", "")
    monkeypatch.setattr("trt_blendmask.engines.operation.find_device", lambda: other)
    assert build(model).device_name == "Another GPU"


def test_no_gpu_no_full_tensorrt(calls: Calls, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_blendmask.engines.operation.find_device", lambda: None)
    with pytest.raises(SourceUnavailableError, match="--flavor rtx"):
        build(model, options=BuildOptions(flavor="tensorrt"))
    assert calls() == []


def test_too_old(calls: Calls, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", "8.6.2.3")
    with pytest.raises(SourceUnavailableError, match=r"TensorRT 10 or newer, got 8\.6\.2\.3.*JetPack 6\.1"):
        build(model, options=BuildOptions(flavor="tensorrt"))  # "auto" would take TensorRT-RTX where it is installed
    assert calls() == []


def test_files_that_are_no_models(calls: Calls, model: Path, tmp_path: Path) -> None:
    cut, raw = tmp_path / "cut.onnx", tmp_path / "raw.onnx"
    cut.write_bytes(model.read_bytes()[:-2000])
    raw.write_bytes(model.read_bytes().replace(b'"deployable"', b'"raw-head"  '))
    for file, words in ((cut, "cut short"), (raw, "surgery"), (tmp_path / "none.onnx", "no such file")):
        with pytest.raises(TrtBlendMaskError, match=words):
            build(file)
    with pytest.raises(UsageError, match="overwrite"):
        build(model, model)
    assert calls() == []


def test_tail_alone_is_built_first(calls: Calls, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    build(model, options=BuildOptions(tail_check=True), progress=lambda p: notes.append(p.note))
    assert calls().count("build_serialized_network") == 2
    assert any("The tail alone builds: 3 layers" in note for note in notes)
    monkeypatch.setenv("FAKE_TENSORRT", "none")
    with pytest.raises(DataError, match="the tail of"):
        build(model, options=BuildOptions(tail_check=True))


@pytest.mark.usefixtures("calls")
def test_eta_from_earlier_builds(model: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    build(model, progress=told.append)
    assert {p.total_seconds for p in told} == {None}
    told.clear()
    build(model, progress=told.append)
    assert any(p.total_seconds is not None for p in told)
    file = tmp_path / "cache" / "trt_blendmask" / "build-times.json"
    (row,) = json.loads(file.read_text())
    assert BuildTimes(file, row["where"]).expected("another", 2 * row["nodes"]) == pytest.approx(2 * row["seconds"])
    file.write_text('[{"seconds": "x"}]')
    assert BuildTimes(file, row["where"]).expected(row["onnx"], 1) is None


def test_onnx_that_changes_meanwhile(calls: Calls, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = model.read_bytes() + b"\0\0"
    monkeypatch.setattr("trt_blendmask.engines.operation.sweep", lambda *_: model.write_bytes(changed))
    with pytest.raises(DataError, match="was changed"):
        build(model)
    assert calls() == []


@pytest.mark.usefixtures("calls")
def test_parity_in_the_passport(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = model.with_suffix(".engine")
    monkeypatch.setattr("trt_blendmask.engines.parity.measure", lambda *files: f"compared {files}")
    assert build(model).parity == f"compared {(engine, model)}"
    assert read_passport(passport_path(engine)).parity == f"compared {(engine, model)}"


@pytest.mark.usefixtures("calls")
def test_engine_that_cannot_be_compared_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Path) -> str:
        raise SourceUnavailableError("no cuda-core")

    notes: list[str] = []
    monkeypatch.setattr("trt_blendmask.engines.parity.measure", fails)
    info = build(model, progress=lambda p: notes.append(p.note))
    assert read_passport(passport_path(model.with_suffix(".engine"))) == info
    assert [note for note in notes if "not compared" in note and "no cuda-core" in note]


def test_comparison_of_two_models(bundled: Path) -> None:
    """The engine is played by the ONNX itself: same objects, and some of them."""
    words = measure(bundled, bundled)
    assert "F1 1.0000" in words
    assert int(words.split("matched of ")[1].split()[0]) > 5


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> Path:
    from trt_blendmask.runtime import model

    load = model.load
    monkeypatch.setattr(model, "load", lambda path, _device: load(path))
    monkeypatch.setattr("trt_blendmask.engines.parity.SCENES", 1)
    return bundled_model()
