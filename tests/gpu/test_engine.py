"""Engines on a GPU, through both CUDA libraries: what they find is what ONNX Runtime finds, by one graph a frame, with
nothing allocated, in two threads at once. Where a library refuses the device, its words are kept and the test skipped.

What was measured or refused is added to $OUT/gpu_engine.json ($OUT: build/).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.raw_head import write_drawn
from tests.gpu.test_cuda import LIBRARIES
from trt_blendmask.backends.lane import FrameTimes, Lane, Mode
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.backends.tensorrt import DeviceArray, TensorRtSession, open_session
from trt_blendmask.bundled import bundled_model
from trt_blendmask.cuda import choose
from trt_blendmask.engines.engine import open_engine
from trt_blendmask.engines.operation import build
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.profiler.layers.tensorrt import tensorrt_layers
from trt_blendmask.profiler.measure import profile
from trt_blendmask.profiler.report import ModelProfile
from trt_blendmask.profiler.steps import ProfileOptions
from trt_blendmask.profiler.trtexec import write_trtexec
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery import operate
from trt_blendmask.surgery.macs import count_macs
from trt_blendmask.synthetic import render_scene

BOUNDS = {"boxes": 1e-2, "scores": 1e-5, "masks": 1e-4}
FRAMES = 200
FLAVORS = [
    pytest.param("rtx", marks=pytest.mark.needs("gpu", "cuda-core", "tensorrt_rtx")),
    pytest.param("tensorrt", marks=pytest.mark.needs("gpu", "cuda-core", "tensorrt")),
]


def report(name: str, value: Any) -> None:
    """Add to what the run of these tests found out."""
    file = Path(os.environ.get("OUT", "build")) / "gpu_engine.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, name: value}, indent=1) + "\n")


@pytest.fixture(scope="module", params=["bundled", "550_R_50"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployable ONNX in float32; 550_R_50 at full size with drawn weights."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bundled":
        (folder / "bundled.onnx").write_bytes(Path(bundled_model()).read_bytes())
        return folder / "bundled.onnx"
    write_drawn("550_R_50_1x", (576, 576), folder / "raw.onnx")
    operate(folder / "raw.onnx", folder / "550_R_50.onnx")
    return folder / "550_R_50.onnx"


@pytest.fixture(scope="module", params=FLAVORS)
def engine(request: pytest.FixtureRequest, model: Path) -> Path:
    path, device = model.with_suffix(f".{request.param}.engine"), choose()
    try:
        build(model, path, BuildOptions(flavor=request.param))
        with device.current():
            open_engine(path).close()
    except TrtBlendMaskError as error:  # what is wrong from here on is ours, and fails
        report(f"{request.param} refused {model.stem}", str(error))
        pytest.skip(f"{request.param} refuses this device: {error}")
    return path


@pytest.fixture(params=LIBRARIES)
def session(request: pytest.FixtureRequest, engine: Path) -> Iterator[TensorRtSession]:
    session = open_session(engine, request.param)
    yield session
    session.close()


def pictures(spec: ModelSpec, n: int = 6) -> list[Any]:
    """Scenes of the conveyor, letterboxed for the network."""
    letterboxer = Letterboxer(spec)
    return [letterboxer(render_scene(seed=7, index=i).image)[0].copy() for i in range(n)]


def spec_of(session: TensorRtSession) -> ModelSpec:
    return ModelSpec.from_json(session.metadata)


def copied(outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value.copy() for name, value in outputs.items()}


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value)


def test_equals_onnxruntime(session: TensorRtSession, engine: Path, model: Path) -> None:
    """The same detections within the bounds of float32. Scores that are all but equal may change places, and one
    detection in a hundred may come to lie on the other side of a threshold.
    """
    reference, found, missed = OnnxRuntimeSession(model), 0, 0
    worst = dict.fromkeys(BOUNDS, 0.0)
    for images in pictures(spec_of(session)):
        wanted, got = reference.run(images), session.run(images)
        n = int(wanted["count"][0])
        missed += abs(int(got["count"][0]) - n)
        for i in range(n):
            apart = nearest(got, wanted, i)
            found, missed = found + 1, missed + any(apart[name] > bound for name, bound in BOUNDS.items())
            worst = {name: max(worst[name], apart[name]) for name in worst}
    report(f"{engine.stem} through {session.device.library}, against ONNX Runtime", {"missed": missed, **worst})
    assert found > 0
    assert missed <= 0.01 * found


def nearest(got: dict[str, Any], wanted: dict[str, Any], i: int) -> dict[str, float]:
    """How far the detection of the same class with the nearest box is from the `i`-th that is wanted."""
    same_class = np.flatnonzero(got["classes"][0, : int(got["count"][0])] == wanted["classes"][0, i])
    if not len(same_class):
        return dict.fromkeys(BOUNDS, float("inf"))
    j = same_class[np.abs(got["boxes"][0, same_class] - wanted["boxes"][0, i]).max(1).argmin()]
    return {name: float(np.abs(got[name][0, j] - wanted[name][0, i]).max()) for name in BOUNDS}


@pytest.mark.parametrize("library", LIBRARIES)
def test_replay_equals_plain_enqueue(engine: Path, library: str) -> None:
    device = choose(library)
    with device.current():
        opened = open_engine(engine)
    images, expected = pictures(opened.info.spec, 3), []
    for mode in [Mode()] + [Mode(mapped=True)] * device.integrated + [Mode(own_graphs=True)] * ("rtx" in engine.name):
        lane = Lane(opened, device, mode)
        assert lane.captured or mode.own_graphs
        graph, lane._graph = lane._graph, None
        expected = expected or [copied(run(lane, picture)) for picture in images]
        lane._graph = graph
        for picture, plain in zip(images * 2, expected * 2, strict=True):
            same(run(lane, picture), plain)
        lane.close()
    with device.current():
        opened.close()


def run(lane: Lane, picture: Any) -> dict[str, Any]:
    lane.images[...] = picture
    return lane.run()


def test_nothing_is_allocated(session: TensorRtSession) -> None:
    images = pictures(spec_of(session), 2)
    for i in range(10):
        session.run(images[i % 2])
    with session.device.current():
        before = session.device.memory_info().free_bytes
    for i in range(FRAMES):
        session.run(images[i % 2])
    with session.device.current():
        assert session.device.memory_info().free_bytes == before


def test_times(session: TensorRtSession, engine: Path) -> None:
    """p50 and p99 of the parts of a frame."""
    session.run(pictures(spec_of(session), 1)[0])
    times = [session.times() for _ in range(FRAMES)]
    parts = {name: np.array([asdict(t)[name] for t in times]) for name in FrameTimes.__annotations__}
    values = {name: [float(np.percentile(ms, q)) for q in (50, 99)] for name, ms in parts.items()}
    report(f"{engine.stem} through {session.device.library}", {"how": session.how, "p50 and p99 in ms": values})
    assert values["compute"][0] > 0
    assert values["frame"][0] <= 1.5 * sum(values[name][0] for name in ("upload", "compute", "download"))


def test_two_engines_in_two_threads(session: TensorRtSession, engine: Path) -> None:
    """And a twin of one of them: each finds what it finds alone."""
    other = open_session(engine)
    sessions, images = [session, session.twin(), other], pictures(spec_of(session))
    alone = [copied(session.run(picture)) for picture in images]
    errors: list[BaseException] = []

    def work(own: TensorRtSession) -> None:
        try:
            for i in range(FRAMES):
                same(own.run(images[i % len(images)]), alone[i % len(images)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert not errors


def test_arrays_on_the_device(session: TensorRtSession) -> None:
    """An input that lies there already gives the same, and the outputs can be had there."""
    picture = pictures(spec_of(session), 1)[0]
    wanted = copied(session.run(picture))
    device = session.device
    with device.current():
        memory, host, stream = device.memory(picture.nbytes), device.pinned(picture.nbytes), device.stream()
        host.array[:] = picture.reshape(-1).view(np.uint8)
        stream.upload(memory.pointer, host.array)
        stream.synchronize()

    theirs: Any = DeviceArray(memory.pointer, picture.shape, picture.dtype)
    for _ in range(2):
        same(session.run(theirs), wanted)
    scores = session.device_outputs()["scores"]
    with device.current():
        stream.download(host.array[: wanted["scores"].nbytes], scores.pointer)
        stream.synchronize()
        got = host.array[: wanted["scores"].nbytes].view(np.float32).reshape(scores.shape)
        np.testing.assert_array_equal(got, wanted["scores"])
        for thing in (memory, host, stream):
            thing.free()


def test_layers(session: TensorRtSession, model: Path, engine: Path) -> None:
    """Nearly all of the time and of the multiply-adds find their part; the sums are reported."""
    profile = tensorrt_layers(session, pictures(spec_of(session)), runs=20)
    expected = sum(count_macs(onnx.load(model)).values())
    assert 0.95 * expected < sum(layer.macs for layer in profile.layers) <= expected
    placed = sum(layer.ms for layer in profile.layers if layer.part != "other")
    assert placed > 0.8 * profile.sum_ms > 0
    files = write_trtexec(replace(NOTHING, layers=profile), Path(os.environ.get("OUT", "build")) / engine.name)
    names = {"runs": profile.runs, "whole_ms": profile.whole_ms, "sum_ms": profile.sum_ms, "placed_ms": placed}
    report(f"layers of {engine.stem} through {session.device.library}", {**names, "files": [str(f) for f in files]})


NOTHING = ModelProfile("engine", "", "", "", "", (0, 0), None, 0)


def test_profile(engine: Path, model: Path) -> None:
    """The engine beside the ONNX that it was built from: the GPU's times lie within the host's."""
    report_of = profile([model, engine], ProfileOptions(duration=2.0, pipeline=False, force=True))
    of_engine = report_of.models[1]
    assert not of_engine.error
    median = {key: float(np.median(times)) for key, times in of_engine.times.items()}
    assert median["gpu"] < median["network"] < median["host"]
    assert median["compute"] > 0
    noise = {key: one.cov for key in ("gpu", "network", "host") if (one := of_engine.distribution(key))}
    compared = [asdict(one) for one in report_of.comparisons if one.metric == "network"]
    found = {"median": median, "cov": noise, "compared": compared, "agreement": of_engine.agreement}
    report(f"profile of {engine.stem}", found)
