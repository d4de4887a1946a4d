"""A whole profile, of sessions that find what a test wants: what is timed, what is not, and what Ctrl-C leaves."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.cuda.fake_engine import SPEC
from tests.profiler import made_up
from tests.profiler.doubles import Clock, GpuSession, Session, find, pictures
from tests.profiler.test_environment import environment, put
from trt_blendmask.doctor.machine import Machine
from trt_blendmask.errors import DataError, SourceUnavailableError, UsageError
from trt_blendmask.profiler import measure, steps, times
from trt_blendmask.profiler.measure import profile, require
from trt_blendmask.profiler.readings import Watcher
from trt_blendmask.profiler.report import PipelineProfile, ProfileReport
from trt_blendmask.profiler.steps import ProfileOptions, labels

QUICK = ProfileOptions(duration=1.0, warmup=0.0, pipeline=False)


def unmasked(images: Any) -> dict[str, Any]:
    """The objects that `find` finds, without a pixel."""
    found = find(images)
    return {**found, "masks": 0 * found["masks"]}


def shifted(images: Any) -> dict[str, Any]:
    """Objects elsewhere than `find` finds them."""
    found = find(images)
    return {**found, "boxes": found["boxes"] + 6}


class Stand:
    """Sessions by the name of their file, opened as `profile` opens files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.clock = Clock(monkeypatch)
        self.sessions: dict[str, Session] = {}
        self._folder = folder
        monkeypatch.setattr(steps, "open_session", lambda path, *_: (self.sessions[path.name], "as a test wants"))
        monkeypatch.setattr(measure, "look_round", lambda _machine: environment())
        monkeypatch.setattr(steps.pictures, "of_source", lambda _text: pictures())

    def add(self, name: str, ms: float = 20.0, kind: type[Session] = Session, **more: Any) -> Path:
        path = self._folder / name
        path.write_bytes(b"no model")
        self.sessions[name] = kind(self.clock, more.pop("seconds", lambda _: ms / 1e3), path, **more)
        return path

    def run(self, *paths: Path, **options: Any) -> ProfileReport:
        return profile(paths, replace(QUICK, **options), "the command", machine=Machine(put(self._folder, {})))


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    return Stand(monkeypatch, tmp_path)


def test_two_models(stand: Stand) -> None:
    report = stand.run(stand.add("a.onnx", 20), stand.add("b.onnx", 30))
    one, other = report.models
    assert (one.label, other.label, one.agreement) == ("a.onnx", "b.onnx", None)
    assert other.agreement is not None
    assert (other.agreement["f1"], other.agreement["mask_iou"]) == (1.0, 1.0)
    assert other.agreement["objects"] > 0
    assert np.median(one.times["host"]) == pytest.approx(20)
    assert one.sha256 == hashlib.sha256(b"no model").hexdigest()
    assert one.file_bytes == 8
    assert {(c.one, c.other, c.metric) for c in report.comparisons} == {
        ("a.onnx", "b.onnx", "host"),
        ("a.onnx", "b.onnx", "network"),
    }
    assert all(c.ratio == pytest.approx(1.5) and c.differs for c in report.comparisons)
    assert report.noise == pytest.approx({"host": 0, "network": 0})
    assert (report.command, report.stopped, report.version) == ("the command", False, 1)
    assert ProfileReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report
    require(report)


def test_an_engine(stand: Stand) -> None:
    report = stand.run(stand.add("a.engine", 5, GpuSession))
    assert np.median(report.models[0].times["gpu"]) == 4.75
    assert set(report.models[0].times) == {"host", "network", "gpu", "h2d", "compute", "d2h", "enqueue"}
    assert set(report.noise) == {"host", "network", "gpu"}


def test_a_model_that_is_wrong_is_not_timed(stand: Stand) -> None:
    paths = [stand.add("a.onnx"), stand.add("wrong.onnx", finds=shifted), stand.add("c.onnx")]
    report = stand.run(*paths)
    wrong = report.models[1]
    assert (wrong.times, wrong.throughput) == ({}, None)
    assert "F1" in wrong.error
    assert wrong.agreement is not None
    assert wrong.agreement["f1"] < 0.9
    assert report.models[0].times
    assert report.models[2].times
    with pytest.raises(DataError, match=r"wrong\.onnx' was not timed.*--force"):
        require(report)
    forced = stand.run(*paths, force=True)
    assert forced.models[1].times
    assert "Timed although its F1" in forced.models[1].warnings[0]
    require(forced)


def test_right_boxes_with_wrong_masks_are_wrong(stand: Stand) -> None:
    paths = [stand.add("a.onnx"), stand.add("wrong.onnx", finds=unmasked)]
    report = stand.run(*paths)
    wrong = report.models[1]
    assert wrong.agreement is not None
    assert (wrong.agreement["f1"], wrong.agreement["mask_iou"]) == (1.0, 0.0)
    assert wrong.times == {}
    assert "its mask IoU against a.onnx is 0.000, below 0.8" in wrong.error
    with pytest.raises(DataError, match=r"mask IoU.*--force"):
        require(report)
    forced = stand.run(*paths, force=True).models[1]
    assert forced.times
    assert "Timed although its mask IoU" in forced.warnings[0]


def test_models_of_other_classes(stand: Stand) -> None:
    spec = replace(SPEC, class_names=("nut", "screw"))
    report = stand.run(stand.add("a.onnx"), stand.add("b.onnx", spec=spec))
    assert "'screw'" in report.models[1].error
    assert report.models[1].agreement is None
    swapped = replace(SPEC, class_names=("bolt", "nut"))
    report = stand.run(stand.add("a.onnx"), stand.add("b.onnx", spec=swapped))
    assert "F1" in report.models[1].error  # the same names, but every object has the other one


def test_a_model_that_fails(stand: Stand) -> None:
    paths = [stand.add("a.onnx"), stand.add("b.onnx")]

    def fail_later(n: int) -> float:
        if n == 20:
            stand.sessions["b.onnx"].raises = DataError("It broke.")
        return 0.02

    stand.sessions["b.onnx"]._seconds = fail_later
    report = stand.run(*paths)
    assert report.models[1].error == "It broke"
    assert len(report.models[0].times["host"]) > 20
    with pytest.raises(DataError, match=r"b\.onnx' was not timed to the end: It broke"):
        require(report)


class BatchSession(Session):
    """Of four frames at once."""

    inputs = tuple(replace(one, shape=(4, *one.shape[1:])) for one in Session.inputs)
    outputs = tuple(replace(one, shape=(4, *one.shape[1:])) for one in Session.outputs)

    def input_buffer(self) -> Any:
        return np.zeros(self.inputs[0].shape, np.uint8)

    def run(self, images: Any) -> dict[str, Any]:
        return {name: np.repeat(value, 4, axis=0) for name, value in super().run(images[:1]).items()}


def test_a_model_with_a_batch_says_that_one_frame_is_in_it(stand: Stand) -> None:
    one, four = stand.run(stand.add("one.onnx"), stand.add("four.onnx", kind=BatchSession)).models
    assert not one.warnings
    assert four.times
    assert "Takes 4 frames at once, of which one is filled here" in four.warnings[0]


@pytest.mark.parametrize("broken", ["a.onnx", "b.onnx"])
def test_a_model_that_fails_when_they_are_compared(stand: Stand, broken: str) -> None:
    """It alone drops out, be it the one that the others are compared with."""
    paths = [stand.add(name) for name in ("a.onnx", "b.onnx", "c.onnx")]
    stand.sessions[broken].raises = SourceUnavailableError("The GPU is gone.")
    report = stand.run(*paths)
    assert {model.label: model.error for model in report.models if model.error} == {broken: "The GPU is gone"}
    assert all(model.times for model in report.models if model.label != broken)
    assert any("not compared, as a.onnx failed" in words for words in report.warnings) == (broken == "a.onnx")


@pytest.mark.parametrize("error", [OSError("No space left"), RuntimeError("[ONNXRuntimeError] : 7"), DataError("No.")])
def test_what_fails_at_the_side_takes_no_times_along(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **_named: object) -> Any:
        raise error

    monkeypatch.setattr(steps, "onnxruntime_layers", fail)
    monkeypatch.setattr(steps, "profile_pipeline", fail)
    report = stand.run(stand.add("a.onnx"), per_layer=True, pipeline=True)
    (model,) = report.models
    assert model.times["host"]
    assert model.throughput is not None
    assert any("Its layers could not be timed" in words and str(error) in words for words in model.warnings)
    assert any("pipeline was not measured" in words and str(error) in words for words in report.warnings)
    require(report)


def stop_at(stand: Stand, name: str, frame: int) -> None:
    """Ctrl-C comes in that frame of that session."""

    def seconds(n: int) -> float:
        if n >= frame:
            raise KeyboardInterrupt
        return 0.02

    stand.sessions[name]._seconds = seconds


def test_ctrl_c_leaves_what_was_measured(stand: Stand) -> None:
    paths = [stand.add("a.onnx"), stand.add("b.onnx")]
    stop_at(stand, "b.onnx", 30)
    report = stand.run(*paths)
    assert report.stopped
    assert 0 < len(report.models[0].times["host"]) < 40
    assert ProfileReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report
    require(report)  # who stopped it knows


def test_ctrl_c_before_a_model_s_first_turn(stand: Stand) -> None:
    """In whichever of them comes second; where it is the first, nothing was measured."""
    reports = []
    for name in ("a.onnx", "b.onnx"):
        paths = [stand.add("a.onnx", 200), stand.add("b.onnx", 200)]
        stop_at(stand, name, 4 + 2)  # pictures that are compared, and frames to warm up
        with suppress(KeyboardInterrupt):
            reports.append(stand.run(*paths))
    (report,) = reports
    assert report.stopped
    assert sorted(bool(model.times) for model in report.models) == [False, True]
    assert all(bool(model.times) != model.error.startswith("stopped") for model in report.models)


def test_ctrl_c_during_glass_to_glass_leaves_the_waterfall(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **_named: object) -> Iterator[PipelineProfile]:
        yield made_up.pipeline()
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "profile_pipeline", stopped)
    report = stand.run(stand.add("a.onnx"), pipeline=True)
    assert report.stopped
    assert report.pipeline == (made_up.pipeline(),)


def test_ctrl_c_before_anything(stand: Stand) -> None:
    paths = [stand.add("a.onnx"), stand.add("b.onnx")]
    stop_at(stand, "b.onnx", 1)
    with pytest.raises(KeyboardInterrupt):
        stand.run(*paths)


def test_energy(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 W at the rate that was measured; by the real clock, which sensors go by."""

    def asleep(images: Any) -> dict[str, Any]:
        time.sleep(0.01)
        return find(images)

    files = {"in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1600"}
    put(tmp_path, {f"sys/class/hwmon/hwmon0/{name}": text for name, text in files.items()})
    monkeypatch.setattr(times, "time", time)
    model = stand.run(stand.add("a.onnx", 0, finds=asleep), duration=0.6).models[0]
    assert model.throughput is not None
    assert model.mj_per_frame == pytest.approx(8000 / model.throughput.frames_per_s)
    assert model.conditions["VDD_IN W"].mean == 8.0


def test_an_idle_gpu_s_watts_are_not_the_cpu_s(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on the CPU of a machine whose only sensor is that of its GPU."""
    sensors = Watcher
    watts = SimpleNamespace(problem="", read=lambda: {"GPU W": 30.0}, slowed_by=set[str])
    monkeypatch.setattr(measure, "Watcher", lambda machine: sensors(machine, watts))  # type: ignore[arg-type]
    monkeypatch.setattr(times, "time", time)

    def asleep(images: Any) -> dict[str, Any]:
        time.sleep(0.01)
        return find(images)

    paths = [stand.add("a.onnx", 0, finds=asleep), stand.add("b.engine", 0, GpuSession, finds=asleep)]
    cpu, gpu = stand.run(*paths, duration=0.4).models
    assert cpu.mj_per_frame is None
    assert gpu.throughput is not None
    assert gpu.mj_per_frame == pytest.approx(30e3 / gpu.throughput.frames_per_s)


def test_eight_pictures_are_compared(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.pictures, "of_source", lambda _text: pictures(15))
    report = stand.run(stand.add("a.onnx"), stand.add("b.onnx"))
    assert report.models[1].agreement is not None
    assert report.models[1].agreement["pictures"] == 8


def test_noise_is_warned_of(stand: Stand) -> None:
    report = stand.run(stand.add("a.onnx"), random=True)
    assert "noise" in report.warnings[0]
    assert "noise" in report.source


def test_a_right_model_is_not_refused_for_noise(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def but_in_noise(images: Any) -> dict[str, Any]:
        return (shifted if images[0, 0, 0, 0] == noise[0][0, 0, 0] else find)(images)

    noise = [np.full((64, 96, 3), 40, np.uint8)]
    monkeypatch.setattr(steps.pictures, "of_noise", lambda _hw: noise)
    report = stand.run(stand.add("a.onnx"), stand.add("b.onnx", finds=but_in_noise), random=True)
    assert report.models[1].agreement is not None
    assert (report.models[1].error, report.models[1].agreement["f1"]) == ("", 1.0)
    assert "compared on frames of synthetic:conveyor" in report.source


def test_nothing_found_is_warned_of(stand: Stand) -> None:
    def nothing(images: Any) -> dict[str, Any]:
        return {**find(images), "count": np.zeros(1, np.int32)}

    report = stand.run(stand.add("a.onnx", finds=nothing), stand.add("b.onnx", finds=nothing))
    assert any("Nothing is found" in words for words in report.warnings)


def test_no_model() -> None:
    with pytest.raises(UsageError, match="profile model"):
        profile([])


def test_labels() -> None:
    assert labels([Path("x/a.onnx"), Path("y/a.onnx"), Path("b.engine")]) == ["a.onnx (1)", "a.onnx (2)", "b.engine"]
