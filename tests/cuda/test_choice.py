"""`load` chooses by file and machine and says so; on a machine without a GPU and on one that has a double of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trt_blendmask
from tests.cuda.fake_cuda import FakeDevice
from tests.cuda.fake_engine import FakeEngine
from tests.engines.fake_runtime import DEVICE, plan_of, put_pair
from tests.runtime.conftest import MODEL_SPEC, ModelMaker, clip, stub_model
from trt_blendmask.backends import tensorrt
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.cli import main
from trt_blendmask.errors import (
    DataError,
    InputMissingError,
    NotTrustedError,
    SourceUnavailableError,
    TrtBlendMaskError,
    UsageError,
)
from trt_blendmask.runtime import choice
from trt_blendmask.runtime.choice import GpuOptions
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.structures import Detections

__all__ = ["clip", "stub_model"]


def put_engine(onnx: Path, **changes: Any) -> Path:
    """An engine file with a passport that says it was built from `onnx`."""
    sha256 = hashlib.sha256(onnx.read_bytes()).hexdigest()
    known = {"onnx_sha256": sha256, "onnx_path": onnx.name, "spec": MODEL_SPEC}
    put_pair(onnx.with_suffix(".engine"), plan_of(), **{**known, **changes})
    return onnx.with_suffix(".engine")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """A machine with a GPU, and TensorRT in which an engine does what the ONNX beside it does."""
    device, opened = FakeDevice(), []

    def open_engine(path: Path, trust: str, rebuild: bool) -> FakeEngine:
        opened.append((path, trust, rebuild))
        network = OnnxRuntimeSession(path.with_suffix(".onnx"))
        engine = FakeEngine(device, network.run, (network.inputs, network.outputs), MODEL_SPEC)
        engine.path = path
        return engine

    for module in (choice, tensorrt):
        monkeypatch.setattr(module, "find_device", lambda: DEVICE)
    monkeypatch.setattr(tensorrt, "open_engine", open_engine)
    monkeypatch.setattr(tensorrt, "choose", lambda _: device)
    device.opened = opened  # type: ignore[attr-defined]
    yield device
    assert not device.live


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (choice, tensorrt, trt_blendmask.engines.engine):
        monkeypatch.setattr(module, "find_device", lambda: None)


def equal(got: Detections, wanted: Detections) -> None:
    for name in ("xyxy", "scores", "classes", "masks"):
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
    assert (got.frame_wh, got.class_names) == (wanted.frame_wh, wanted.class_names)


def frames() -> list[Any]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*hw, 3), dtype=np.uint8) for hw in ((64, 96), (120, 160), (50, 200), (33, 20))]


@pytest.mark.usefixtures("no_gpu")
def test_onnx_runs_on_the_cpu(stub_model: ModelMaker) -> None:
    with trt_blendmask.load(stub_model()) as model:
        assert model.how.startswith("ONNX Runtime ")
        assert "on the CPU" in model.how
        assert model.how.endswith("model.onnx' is an ONNX model")


def test_onnx_on_a_machine_with_a_gpu(stub_model: ModelMaker, gpu: FakeDevice) -> None:
    """The file that was named is the file that runs; what would make it faster is said."""
    path = stub_model("my model.onnx")
    for device in ("auto", "cpu"):
        with trt_blendmask.load(path, device) as model:
            assert "on the CPU" in model.how
            assert f"trt-blendmask build '{path}' -o '{path.with_suffix('.engine')}'" in model.how
    with pytest.raises(UsageError, match="trt-blendmask build"):
        trt_blendmask.load(path, "gpu")
    assert not gpu.counts


def test_engine_on_the_gpu(stub_model: ModelMaker, gpu: FakeDevice) -> None:
    """The same detections as of the ONNX; the picture is letterboxed into pinned memory."""
    path = stub_model()
    engine = put_engine(path)
    options = GpuOptions(trust="ab" * 32, rebuild=True)
    with trt_blendmask.load(path) as model, trt_blendmask.load(engine, "auto", gpu=options) as ours:
        assert ours.how.startswith("TensorRT 10.13.3.9 on Fake through a double: one CUDA graph a frame")
        assert ours.how.endswith("model.engine' is an engine")
        assert gpu.opened == [(engine, "ab" * 32, True)]  # type: ignore[attr-defined]
        counts = None
        for frame in frames() * 3:
            equal(ours(frame), model(frame))
            counts = counts or gpu.counts.copy()
        assert gpu.counts == counts
        images, _ = ours.letterbox(frames()[0])
        with gpu.current():
            gpu.bytes_at(images.ctypes.data, images.nbytes, ("host",))
        twin = ours.twin()
        equal(twin(frames()[1]), model(frames()[1]))


def test_steps_out_of_order(stub_model: ModelMaker, gpu: FakeDevice) -> None:  # noqa: ARG001
    """A copy of an earlier picture passes through the pinned memory, whose padding it spoils for the next one."""
    path, pictures = stub_model(), frames()
    with trt_blendmask.load(path) as model, trt_blendmask.load(put_engine(path)) as ours:
        early = [(images.copy(), box) for images, box in map(ours.letterbox, pictures)]
        for images, box in early:
            ours.collect(ours.infer(images), box)
            equal(ours(pictures[-1]), model(pictures[-1]))


def test_run_overlaps_two_lanes(stub_model: ModelMaker, gpu: FakeDevice, clip: Any, tmp_path: Path) -> None:
    path, video = stub_model(), clip()
    engine = put_engine(path)
    lines = [tmp_path / "cpu.jsonl", tmp_path / "gpu.jsonl"]
    run(path, video, json=lines[0])
    report = run(engine, video, json=lines[1])
    said = [[json.loads(line) for line in file.read_text().splitlines()] for file in lines]
    cpu, ours = ([(line["frame"], line["detections"]) for line in file] for file in said)
    assert cpu == ours
    assert cpu
    assert report.how.startswith("TensorRT")
    assert gpu.counts["stream"] == gpu.counts["graph"] == 2


def test_run_with_memory_for_one_lane(stub_model: ModelMaker, gpu: FakeDevice, clip: Any, tmp_path: Path) -> None:
    engine, lines = put_engine(stub_model()), tmp_path / "gpu.jsonl"
    gpu.total = 64 * 96 * 3 + 5 * 64 * 8 * 4
    assert run(engine, clip(4), json=lines).frames == 4
    assert gpu.counts["graph"] == 1


@pytest.mark.usefixtures("no_gpu")
def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputMissingError, match="pipe"):
        trt_blendmask.load(tmp_path / "pipe")


@pytest.mark.usefixtures("no_gpu")
def test_engine_without_a_gpu(stub_model: ModelMaker) -> None:
    """What it was built from runs in its place, if it is the same to the last bit."""
    path = stub_model()
    engine = put_engine(path)
    with trt_blendmask.load(path) as model, trt_blendmask.load(engine) as ours:
        assert ours.how.endswith(f"'{path}', which '{engine}' was built from, as there is no GPU")
        for frame in frames():
            equal(ours(frame), model(frame))
    with trt_blendmask.load(engine, "cpu") as ours:
        assert ours.how.endswith("as --device cpu asks for")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("why", ["gone", "changed", "plugin"])
def test_engine_without_a_gpu_nor_its_onnx(stub_model: ModelMaker, why: str) -> None:
    path = stub_model()
    engine = put_engine(path, spec=replace(MODEL_SPEC, tail="plugin" if why == "plugin" else "native"))
    if why == "gone":
        path.unlink()
    if why == "changed":
        path.write_bytes(path.read_bytes() + b"\n")
    for device, kind, code in (("auto", SourceUnavailableError, 69), ("cpu", UsageError, 2)):
        with pytest.raises(kind) as caught:
            trt_blendmask.load(engine, device)
        assert caught.value.exit_code == code
    with pytest.raises(SourceUnavailableError, match="GPU"):
        trt_blendmask.load(engine, "gpu")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cpu", "gpu"])
def test_the_file_is_judged_before_the_machine(stub_model: ModelMaker, device: str) -> None:
    path = stub_model()
    engine = put_engine(path)
    content = bytearray(engine.read_bytes())
    content[100] ^= 1
    cases: list[tuple[Path, type[TrtBlendMaskError]]] = []
    (damaged := path.with_name("damaged.engine")).write_bytes(bytes(content))
    Path(f"{damaged}.json").write_bytes(Path(f"{engine}.json").read_bytes())
    (bare := path.with_name("bare.engine")).write_bytes(engine.read_bytes())
    (disguised := path.with_name("disguised.engine")).write_bytes(path.read_bytes())
    (unnamed := path.with_name("plan.bin")).write_bytes(engine.read_bytes())
    (open_to_all := put_engine(stub_model("open.onnx"))).chmod(0o666)
    cases += [(damaged, DataError), (bare, NotTrustedError), (disguised, DataError), (unnamed, NotTrustedError)]
    cases += [(path.with_name("missing.engine"), InputMissingError), (open_to_all, NotTrustedError)]
    for file, kind in cases:
        with pytest.raises(kind):
            trt_blendmask.load(file, device)


def test_unknown_device(stub_model: ModelMaker) -> None:
    with pytest.raises(UsageError, match="Expected the device to be auto, cpu or gpu, got 'cuda'"):
        trt_blendmask.load(stub_model(), "cuda")


def test_command_line(
    stub_model: ModelMaker, gpu: FakeDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: Any
) -> None:
    """`predict` and `run` take engines and say what ran."""
    engine, picture = put_engine(stub_model()), tmp_path / "a.png"
    import cv2

    cv2.imwrite(os.fspath(picture), frames()[1])
    assert main(["predict", str(engine), str(picture), "-o", str(tmp_path / "out"), "--score", "0.1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("TensorRT 10.13.3.9 on Fake")
    assert "3 detections" in said[1]
    assert main(["run", str(engine), str(clip()), "--max-frames", "3", "--rebuild"]) == 0
    assert capsys.readouterr().err.startswith("TensorRT 10.13.3.9 on Fake")
    assert [options[2] for options in gpu.opened] == [False, True]  # type: ignore[attr-defined]
    assert main(["predict", str(engine), str(picture), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("ONNX Runtime")
