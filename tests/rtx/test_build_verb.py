"""The verb `build` with the real TensorRT-RTX, which builds without a GPU: engines, passports, refusals, kills.

The full sizes take about a minute each on one core; `pytest -s` prints seconds and memory.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks.raw_head import as_adelaidet_writes, write_drawn
from tests.engines import fake_tensorrt
from trt_blendmask import bundled_model
from trt_blendmask.calibrate import graph_sha256
from trt_blendmask.calibrate.table import write_table
from trt_blendmask.engines.operation import build
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.passport import matching_passport, passport_path, read_passport
from trt_blendmask.engines.progress import Progress
from trt_blendmask.engines.timing_cache import read_entries
from trt_blendmask.errors import DataError, SourceUnavailableError, UsageError
from trt_blendmask.export import export_onnx
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.quantize.int8_file import quantize_int8_file
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.structures import CalibrationTable, EngineInfo, ModelSpec
from trt_blendmask.surgery import SurgeryOptions, operate

ROOT = Path(__file__).resolve().parents[2]
RTX = BuildOptions(flavor="rtx")
FULL_SIZE = {
    "550_R_50_3x": (576, 928),
    "RT_R_50_4x_bn-head_syncbn_shtw": (512, 736),
    "DLA_34_syncbn_4x": (512, 736),
    "R_101_3x": (800, 1344),
}


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=["bundled", *FULL_SIZE])
def deployable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bundled":
        (folder / "model.onnx").write_bytes(bundled_model().read_bytes())
    else:
        write_drawn(request.param, FULL_SIZE[request.param], folder / "raw.onnx")
        operate(folder / "raw.onnx", folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="session")
def small(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployable model that builds in seconds."""
    folder, source = tmp_path_factory.mktemp("small"), reference / "end_to_end" / "rt_r50"
    export_onnx(source / "model_plain.pth", source / "config_full.yaml", folder / "raw.onnx", (64, 64))
    operate(folder / "raw.onnx", folder / "model.onnx", SurgeryOptions(max_detections=4))
    return folder / "model.onnx"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def built(model: Path, options: BuildOptions = RTX) -> EngineInfo:
    """Build, and compare the passport with engine and ONNX."""
    told: list[Progress] = []
    info = build(model, options=options, progress=told.append)
    engine = model.with_suffix(".engine")
    print(f"\n{model.name}: {info.build_seconds:.1f} s, {told[-1].peak_mib} MiB, {info.plan_bytes / 1e6:.1f} MB")
    assert engine.read_bytes()[:4] == b"vtrt"
    assert read_passport(passport_path(engine)) == info
    assert (info.plan_sha256, info.plan_bytes) == (sha256(engine), engine.stat().st_size)
    assert (info.onnx_sha256, info.onnx_path) == (sha256(model), model.name)
    graph = onnx.load(model)
    (text,) = [entry.value for entry in graph.metadata_props]
    assert info.spec == ModelSpec.from_json(text)
    assert [spec.name for spec in (*info.inputs, *info.outputs)] == [v.name for v in ends(graph)]
    for spec, value in zip((*info.inputs, *info.outputs), ends(graph), strict=True):
        kind = value.type.tensor_type
        assert spec.shape == tuple(d.dim_value for d in kind.shape.dim)
        assert spec.dtype == onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return info


def ends(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]


def test_float32(deployable: Path) -> None:
    assert built(deployable).table_sha256 == ""


def test_fp16(deployable: Path) -> None:
    half = deployable.with_name("half.onnx")
    quantize_fp16(deployable, half)
    assert built(half).spec.precision == "fp16"


def test_int8(deployable: Path) -> None:
    source = read_deployable(deployable)
    ranges = dict.fromkeys(read_plan(source.model).tensors, 4.0)
    table, quantised = deployable.with_name("table.json"), deployable.with_name("int8.onnx")
    write_table(CalibrationTable(graph_sha256(source.model), "mse", ranges, (), {}), table)
    quantize_int8_file(deployable, table, quantised)
    info = built(quantised)
    assert (info.spec.precision, info.table_sha256) == ("int8", sha256(table))


@pytest.mark.parametrize("deployable", FULL_SIZE, indirect=True)
def test_as_adelaidets_exporter_writes_it(deployable: Path) -> None:
    """The head's weights once per level, every weight an input, too: surgery makes the very same file of it, so the
    engines above are of AdelaiDet's files as well."""
    theirs, model = deployable.with_name("theirs.raw.onnx"), deployable.with_name("theirs.onnx")
    as_adelaidet_writes(deployable.with_name("raw.onnx"), theirs)
    assert theirs.read_bytes() != deployable.with_name("raw.onnx").read_bytes()
    operate(theirs, model)
    assert sha256(model) == sha256(deployable)


@pytest.mark.parametrize("name", ["550_r50", "rt_r50", "dla34_small"])
def test_adelaidets_own_files(reference: Path, tmp_path: Path, name: str) -> None:
    config = reference / "end_to_end" / name / "config_full.yaml"
    operate(reference / "onnx" / f"{name}_legacy.onnx", tmp_path / "model.onnx", SurgeryOptions(config=config))
    built(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("capability", "recorded"), [(("8.6",), "8.6"), (("8.9", "12.0"), ""), (("8.0",), "8.0")], ids=str
)
def test_gpus_to_build_for(small: Path, capability: tuple[str, ...], recorded: str) -> None:
    info = built(small, BuildOptions(flavor="rtx", compute_capability=capability, opt_level=0))
    assert info.compute_capability == recorded
    assert info.options == {"compute_capability": list(capability), "opt_level": 0}


def test_turing_takes_no_float32(small: Path, tmp_path: Path) -> None:
    turing, half = BuildOptions(flavor="rtx", compute_capability=("7.5",)), tmp_path / "half.onnx"
    with pytest.raises(DataError, match="--precision fp16"):
        build(small, options=turing)
    quantize_fp16(small, half)
    assert built(half, turing).compute_capability == "7.5"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"compute_capability": ("9.9",)}, UsageError, "it knows 7.5, 8.0"),
        ({"version_compatible": True}, UsageError, "--flavor tensorrt"),
        ({"hardware_compatible": "ampere+"}, UsageError, "--flavor tensorrt"),
        ({"dla": 0}, UsageError, "--flavor tensorrt"),
        ({"profile": (1, 1, 2)}, UsageError, "leave --profile out"),
        ({"workspace_mib": 1}, SourceUnavailableError, "--workspace"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(
    deployable_small_enough: Path, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        build(deployable_small_enough, options=BuildOptions(flavor="rtx", **options))


@pytest.fixture
def deployable_small_enough(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(bundled_model().read_bytes())
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("tail", ["plugin", "aot"])
def test_plugin_graphs_never_reach_the_parser(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: str
) -> None:
    operate(small.with_name("raw.onnx"), tmp_path / "model.onnx", SurgeryOptions(tail=tail))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("it would end the process"))
    with pytest.raises(DataError, match=rf"--tail {tail}\b.*--tail native"):
        build(tmp_path / "model.onnx", options=RTX)


def test_op_that_it_does_not_have(small: Path, tmp_path: Path) -> None:
    operate(small.with_name("raw.onnx"), tmp_path / "model.onnx", SurgeryOptions(nms="op"))
    with pytest.raises(DataError, match=r"NonMaxSuppression 'nms\.\w+' in the selection.*--nms matrix"):
        build(tmp_path / "model.onnx", options=RTX)


def test_op_that_its_parser_does_not_have(small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    (node,) = [node for node in model.graph.node if node.name == "tail.masks"]
    node.op_type = "NotAnOp"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(DataError, match=r"NotAnOp 'tail\.masks' in the tail .*not supported"):
        build(tmp_path / "model.onnx", options=RTX)


def test_tail_check(small: Path) -> None:
    notes: list[str] = []
    build(small, options=BuildOptions(flavor="rtx", tail_check=True), progress=lambda p: notes.append(p.note))
    assert [note for note in notes if note.startswith("The tail alone builds")]


def test_damaged_timing_cache_is_replaced(small: Path, tmp_path: Path) -> None:
    cache, notes = tmp_path / "timings", list[str]()
    options = BuildOptions(flavor="rtx", timing_cache=cache)
    for content in (None, b"junk", b"ptrtd" + bytes(500)):
        if content is not None:
            cache.write_bytes(content)
        plain = build(small, options=options, progress=lambda p: notes.append(p.note))
        assert len(read_entries(cache)) == 1
        assert plain.options == {}
    assert len([note for note in notes if "damaged" in note]) == 2


@pytest.fixture
def start(small: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trt_blendmask", "build", str(small), "--flavor", "rtx"]
        running.append(
            subprocess.Popen(
                [*command, "-o", str(tmp_path / "e.engine"), *more], stdout=-1, stderr=-1, text=True, cwd=ROOT
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def whole(engine: Path) -> bool:
    return not engine.exists() or matching_passport(engine, sha256(engine)) is not None


def test_killed_at_50_moments(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Half of the moments are about the end of a build, where files are put in place."""
    engine, draw = tmp_path / "e.engine", random.Random(6)
    began = time.monotonic()
    assert start().wait() == 0
    seconds, finished = time.monotonic() - began, 0
    for _ in range(50):
        process = start("--opt-level", str(draw.randrange(6)))
        with suppress(subprocess.TimeoutExpired):
            finished += process.wait(draw.uniform(*draw.choice([(0.02, 1.1), (0.9, 1.1)])) * seconds) == 0
        process.kill()
        process.wait()
        assert whole(engine)
        assert engine.exists()
    print(f"\na build takes {seconds:.1f} s; {finished} of 50 had finished before the kill")
    assert start().wait() == 0
    assert whole(engine)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".e.") and p.suffix == ".engine"] == []


def test_four_at_once(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    processes = [start("--opt-level", str(level)) for level in (0, 3, 0, 3)]
    assert [process.wait() for process in processes] == [0] * 4
    assert whole(tmp_path / "e.engine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "e.engine", "e.engine.json"]


@pytest.mark.parametrize("moment", [0.3, 0.6, 0.9])
def test_ctrl_c(start: Callable[..., subprocess.Popen[str]], tmp_path: Path, moment: float) -> None:
    began = time.monotonic()
    start().wait()
    seconds = time.monotonic() - began
    before = sha256(tmp_path / "e.engine")
    process = start("--opt-level", "5")
    time.sleep(moment * seconds)
    process.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    _, words = process.communicate()
    assert time.monotonic() - stopped < 8
    if process.returncode:
        assert (process.returncode, words.count("\n")) == (130, 1)
        assert sha256(tmp_path / "e.engine") == before or moment == 0.9  # which may come when it is in place
    assert whole(tmp_path / "e.engine")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_double_has_no_name_that_the_real_module_lacks() -> None:
    import tensorrt_rtx

    real_names = {
        "Network": "INetworkDefinition",
        "BuilderConfig": "IBuilderConfig",
        "HostMemory": "IHostMemory",
        "Tensor": "ITensor",
        "TimingCache": "ITimingCache",
        "Profile": "IOptimizationProfile",
        "PluginRegistry": "IPluginRegistry",
    }
    doubles = {n: d for n, d in vars(fake_tensorrt).items() if getattr(d, "__module__", "") == fake_tensorrt.__name__}
    for name, double in doubles.items():
        if not name.startswith("_"):
            real = getattr(tensorrt_rtx, real_names.get(name, name))
            members = [m for m in vars(double) if not m.startswith("_")] if inspect.isclass(double) else []
            assert [m for m in members if not hasattr(real, m)] == [], name
