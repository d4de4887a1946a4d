"""The pipeline of a real run: every stage, where it lies in time, what bounds the rate, and a delay seen through it."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.runtime.conftest import clip, stub_model  # noqa: F401
from tests.stream import clips
from tests.stream.mjpeg_server import MjpegServer
from trt_blendmask.errors import DataError, SourceUnavailableError
from trt_blendmask.profiler import pipeline
from trt_blendmask.profiler.pictures import of_source
from trt_blendmask.profiler.pipeline import profile_pipeline
from trt_blendmask.profiler.report import PipelineProfile
from trt_blendmask.profiler.words import bound, busy
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.recording.recorder import Recorder
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources.grammar import parse
from trt_blendmask.runtime.sources.synthetic import Belt, SyntheticSource
from trt_blendmask.structures import Detections, Frame

STAGES = ("decode", "letterbox", "network", "collect", "paste", "draw", "encode")
Maker = Callable[..., Path]
LIVE = "synthetic:conveyor?size=160x90&live=1&fps=30"


def slowed(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, seconds: float) -> None:
    """Let a method of every object sleep before it works."""
    work = getattr(owner, name)

    def slow(*args: object) -> object:
        time.sleep(seconds)
        return work(*args)

    monkeypatch.setattr(owner, name, slow)


def spans(profile: PipelineProfile) -> dict[int, dict[str, tuple[float, float]]]:
    """By frame and stage."""
    frames: dict[int, dict[str, tuple[float, float]]] = {}
    for stage in profile.stages:
        for index, begin, end in stage.spans:
            frames.setdefault(index, {})[stage.name] = (begin, end)
    return frames


@pytest.fixture
def profile(stub_model: Maker, clip: Maker) -> Callable[..., PipelineProfile]:  # noqa: F811
    """Of the stub model on 30 frames of a file, or another source."""

    def make(
        source: str = "", seconds: float = 5.0, glass: bool = False, warn: Callable[[str], None] = lambda _: None
    ) -> PipelineProfile:
        text = source or str(clip(30, (320, 180)))
        with closing(profile_pipeline(stub_model(), "stub", text, seconds, warn=warn)) as found:
            return list(found)[-1] if glass else next(found)

    return make


def test_every_stage_of_a_frame_lies_after_the_one_before_it(
    profile: Callable[..., PipelineProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in ((Letterboxer, "__call__"), (Model, "infer"), (Model, "collect"), (Recorder, "write")):
        slowed(monkeypatch, owner, name, 0.01)
    found = profile()
    assert tuple(stage.name for stage in found.stages) == STAGES
    assert found.frames == 30
    assert found.fps == pytest.approx(30 / found.seconds)
    assert all(stage.ms.min_ms >= 10 for stage in found.stages if stage.name not in ("decode", "paste", "draw"))
    drawn = spans(found)
    assert len(drawn) == pipeline.DRAWN
    assert min(begin for frame in drawn.values() for begin, _ in frame.values()) == 0
    for frame in drawn.values():
        assert all(begin <= end for begin, end in frame.values())
        assert all(frame[one][1] <= frame[other][0] + 0.01 for one, other in itertools.pairwise(STAGES))
    for name in ("decode", "paste", "draw", "encode"):  # one thread each: nothing overlaps
        ordered = sorted(frame[name] for frame in drawn.values())
        assert all(one[1] <= other[0] + 0.01 for one, other in itertools.pairwise(ordered))


def test_stages_overlap_and_the_slowest_bounds_the_rate(
    profile: Callable[..., PipelineProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed(monkeypatch, Recorder, "write", 0.03)
    slowed(monkeypatch, Model, "infer", 0.01)
    found = profile()
    shares = busy(found)
    assert bound(found).startswith("encode bounds the rate: its thread works")
    assert shares["sink"] > 0.85 > shares["network"]
    drawn = spans(found)
    first, second = sorted(drawn)[:2]
    assert drawn[second]["network"][0] < drawn[first]["encode"][1], "one frame is in the network while another is out"


def test_frames_that_go_through_the_network_together() -> None:
    """Two batches of two: letterboxed one after the other, then 20 ms together, then out one after the other."""

    class Nowhere:
        name, draws, written = "", True, list[Path]()

        def check(self) -> None: ...
        def write(self, result: FrameResult) -> None: ...
        def close(self) -> None: ...

    source = pipeline.WatchedSource(SyntheticSource(Belt(parse("synthetic:conveyor?seconds=1"))), 1.0)
    sink = pipeline.WatchedSink(Nowhere(), source)
    times = {"letterbox": 2.0, "network": 20.0, "collect": 1.0, "paste": 0.5, "draw": 0.5}
    floats = [np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0, 8, 8))]
    nothing = Detections(floats[0], floats[1], np.zeros(0, np.int32), floats[2], (64, 36), ("a",))
    image = np.zeros((36, 64, 3), np.uint8)
    for index, taken_s in enumerate((10.0, 10.0, 10.1, 10.1)):
        sink.write(FrameResult(Frame(image, index), nothing, source.state(), dict(times), taken_s=taken_s))
    found = [spans for _, spans in sink.frames()]
    assert [spans["letterbox"] for spans in found] == [
        pytest.approx(span) for span in ((10, 10.002), (10.002, 10.004), (10.1, 10.102), (10.102, 10.104))
    ]
    assert [spans["network"][0] for spans in found] == pytest.approx([10.004, 10.004, 10.104, 10.104])
    assert found[0]["collect"] == pytest.approx((10.024, 10.025))
    assert [index for index, _ in sink.frames()] == [0, 1, 2, 3]
    stages = {stage.name: stage.together for stage in pipeline._stages(sink.frames(), 1, (50.0,))}
    assert (stages["letterbox"], stages["network"]) == (1, 2)


def test_a_live_source_decodes_by_itself(profile: Callable[..., PipelineProfile]) -> None:
    found = profile(LIVE, 1.0)
    assert tuple(stage.name for stage in found.stages) == STAGES[1:]
    assert found.seconds < 5


@pytest.mark.parametrize("use", ["pictures", "pipeline"])
def test_a_camera_that_goes_away_holds_up_nothing(stub_model: Maker, use: str) -> None:  # noqa: F811
    """`run` would wait for it for ever."""
    with MjpegServer() as camera:
        threading.Timer(0.6, setattr, [camera, "mode", "close"]).start()
        with pytest.raises(SourceUnavailableError):
            if use == "pictures":
                of_source(camera.url)
            else:
                next(profile_pipeline(stub_model(), "stub", camera.url, 60.0))


def test_glass_to_glass_sees_a_planted_delay_of_100_ms(
    profile: Callable[..., PipelineProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_CAMERA_FPS", 8.0)  # no frame waits for the one before it
    swift = profile(seconds=1.2, glass=True).glass_to_glass
    slowed(monkeypatch, Model, "infer", 0.1)
    slow = profile(seconds=1.2, glass=True).glass_to_glass
    assert swift is not None
    assert slow is not None
    assert slow.min_ms - swift.min_ms == pytest.approx(100, abs=5)
    assert swift.min_ms < 60


def test_too_few_frames_say_what_to_do(stub_model: Maker, clip: Maker) -> None:  # noqa: F811
    with pytest.raises(DataError, match=r"Expected more than \d frames from '.*short.mp4', got 2: name another source"):
        next(profile_pipeline(stub_model(), "stub", str(clip(2, (320, 180), "short.mp4")), 3.0))


def test_small_pictures_have_no_room_for_a_time_code(
    stub_model: Maker,  # noqa: F811
    clip: Maker,  # noqa: F811
) -> None:
    (found,) = profile_pipeline(stub_model(), "stub", str(clip(20, (120, 80))), 1.0)
    assert found.glass_to_glass is None
    assert found.frames == 20


@pytest.mark.parametrize(
    ("sizes", "has_ages"),
    [
        ([(120, 90), (480, 360), (320, 240), (480, 360)], True),  # of the first size that has room
        ([(1024, 40)], False),
        ([(1024, 110)], False),  # nothing below the code
        ([(120, 90)], False),
    ],
)
def test_pictures_without_room_for_a_time_code(
    stub_model: Maker,  # noqa: F811
    tmp_path: Path,
    sizes: list[tuple[int, int]],
    has_ages: bool,
) -> None:
    for number, (width, height) in enumerate(4 * sizes if len(sizes) > 1 else 16 * sizes):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((height, width, 3), 90, np.uint8))
    warnings: list[str] = []
    *_, found = profile_pipeline(stub_model(), "stub", str(tmp_path), 1.0, warn=warnings.append)
    assert found.frames == 16
    assert (found.glass_to_glass is not None) == has_ages
    assert [words.partition(":")[0] for words in warnings] == [] if has_ages else ["Glass to glass was not measured"]


def test_a_failure_of_glass_to_glass_leaves_the_waterfall(
    profile: Callable[..., PipelineProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[float]:
        raise SourceUnavailableError("The camera is gone.")

    monkeypatch.setattr(pipeline, "glass_to_glass", fail)
    warnings: list[str] = []
    found = profile(seconds=1.0, glass=True, warn=warnings.append)
    assert tuple(stage.name for stage in found.stages) == STAGES
    assert found.glass_to_glass is None
    assert warnings == ["Glass to glass was not measured: The camera is gone."]


def test_a_recording_that_breaks_off_is_told(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "a.mkv"
    clips.recording(path, 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    warnings: list[str] = []
    with closing(profile_pipeline(stub_model(), "stub", str(path), 3.0, warn=warnings.append)) as found:
        assert 10 < next(found).frames < 90
    (words,) = warnings
    assert "a.mkv' whole, but it breaks off after" in words


def test_ctrl_c_ends_it_and_leaves_no_thread(
    profile: Callable[..., PipelineProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `Thread.join` that it breaks off would take the sink for ended, and Python would end under its feet."""
    slowed(monkeypatch, Recorder, "write", 0.02)
    before = set(threading.enumerate())
    ctrl_c = threading.Timer(0.8, os.kill, [os.getpid(), signal.SIGINT])
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        profile(LIVE, 30.0)
    ctrl_c.join()
    left = set(threading.enumerate()) - before
    assert {thread.name for thread in left} <= {"source line"}  # which may hang in a driver and is not waited for
    for thread in left:
        thread.join(10)
        assert not thread.is_alive()
