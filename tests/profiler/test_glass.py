"""The time code survives what happens to pictures, says nothing where it does not, and measures a delay."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_blendmask.errors import DataError
from trt_blendmask.profiler import glass
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.runtime.recording.video import VideoFile
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import U8, Detections, Frame
from trt_blendmask.synthetic import Conveyor

TIMES = (0.0, 12.3456, 77.7777, 104.8575, 50.0001)


@pytest.fixture(scope="module")
def scene() -> U8:
    return np.ascontiguousarray(Conveyor(3, (512, 288)).frame(7).image)


def coded(scene: U8, at_s: float) -> U8:
    image = scene.copy()
    glass.paint(image, at_s)
    return image


@given(at_s=st.floats(0, 1e6), width=st.integers(160, 700))
def test_any_time_in_any_width_comes_back_to_a_step(at_s: float, width: int) -> None:
    image = np.full((width // 2, width, 3), 128, np.uint8)
    glass.paint(image, at_s)
    found = glass.read(image)
    assert found is not None
    assert abs((found - at_s + 1) % glass.PERIOD_S - 1) <= glass.STEP_S * 0.51 + 1e-9


@given(at_s=st.floats(0, 1e5))
def test_no_picture_is_older_than_its_time(at_s: float) -> None:
    """The code has steps: one that is read at once, rounded up, is not the oldest there can be."""
    image = np.full((100, 160, 3), 128, np.uint8)
    glass.paint(image, at_s)
    for later_s in (0.0, 0.02):
        age_s = glass.age_s(image, at_s + later_s)
        assert age_s == pytest.approx(later_s, abs=0.51 * glass.STEP_S)


@pytest.mark.parametrize("at_s", TIMES)
def test_jpeg_of_quality_50_and_less(scene: U8, at_s: float) -> None:
    for quality in (50, 25):
        jpeg = cv2.imencode(".jpg", coded(scene, at_s), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        assert glass.read(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == pytest.approx(at_s, abs=1e-6)


@pytest.mark.parametrize("scale", [0.5, 0.61, 0.75, 1.37, 2.0])
@pytest.mark.parametrize("interpolation", [cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_AREA])
def test_scaling_and_then_jpeg(scene: U8, scale: float, interpolation: int) -> None:
    for at_s in TIMES:
        image = cv2.resize(coded(scene, at_s), None, fx=scale, fy=scale, interpolation=interpolation)
        assert glass.read(image) == pytest.approx(at_s, abs=1e-6)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
        assert glass.read(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) == pytest.approx(at_s, abs=1e-6)


def test_h264_of_crf_30_also_at_half_the_size(tmp_path: Path) -> None:
    belt, path = Conveyor(3, (512, 288)), tmp_path / "coded.mp4"
    times = [1.0 + 0.0401 * k for k in range(12)]
    for scale in (1.0, 0.5):
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25, options={"crf": "30", "preset": "veryfast"})
            video.width, video.height, video.pix_fmt = int(512 * scale), int(288 * scale), "yuv420p"
            for k, at_s in enumerate(times):
                image = coded(np.ascontiguousarray(belt.frame(k).image), at_s)
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        with av.open(str(path)) as container:
            found = [glass.read(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
        assert found == pytest.approx(times, abs=1e-6)


def test_the_recording_of_a_run(scene: U8, tmp_path: Path) -> None:
    times = [2.0 + 0.04 * k for k in range(10)]
    video = VideoFile(tmp_path / "run.mkv", 25, (512, 288))
    for k, at_s in enumerate(times):
        video.write(coded(scene, at_s), k / 25)
    video.close()
    with av.open(str(tmp_path / "run.mkv")) as container:
        found = [glass.read(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
    assert found == pytest.approx(times, abs=1e-6)


def test_a_mask_drawn_over_it_is_read_or_refused_but_never_another_time(scene: U8) -> None:
    rng = np.random.default_rng(5)
    read = 0
    for at_s in rng.uniform(0, 100, 60):
        image = coded(scene, float(at_s))
        x, y = rng.uniform(-20, 110), rng.uniform(-20, 30)
        found = Detections(
            np.array([[x, y, x + 40, y + 40]], np.float32),
            np.array([0.9], np.float32),
            np.array([int(rng.integers(10))], np.int32),
            np.ones((1, 28, 28), np.float32),
            (512, 288),
            tuple("abcdefghij"),
        )
        draw(image, found)
        seen = glass.read(image)
        read += seen is not None
        assert seen is None or seen == pytest.approx(at_s, abs=glass.STEP_S)
    assert read > 0


def test_pictures_without_a_code_have_no_time(scene: U8) -> None:
    rng = np.random.default_rng(1)
    assert glass.read(scene) is None
    assert glass.read(np.zeros((288, 512, 3), np.uint8)) is None
    assert glass.read(coded(scene, 5.0)[:, ::-1]) is None
    assert glass.read(coded(scene, 5.0)[10:]) is None
    assert glass.read(np.zeros((2, 3, 3), np.uint8)) is None
    assert not any(glass.read(rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)) for _ in range(200))


def test_one_wrong_cell_is_noticed(scene: U8) -> None:
    """The check has teeth: whichever cell is inverted in all four codes, no time comes out."""
    step = 512 / 40
    for row in range(4):
        for column in range(10):
            image = coded(scene, 33.3333)
            for code in (2, 0, 3, 1):
                assert glass.read(image) == pytest.approx(33.3333, abs=1e-6)
                left = (10 * code + column) * step
                part = image[round(row * step) : round((row + 1) * step), round(left) : round(left + step)]
                part[...] = 251 - part
            assert glass.read(image) is None


def test_the_age_goes_on_where_the_code_begins_anew(scene: U8) -> None:
    painted_s = 3 * glass.PERIOD_S - 0.05
    assert glass.age_s(coded(scene, painted_s), painted_s + 0.1) == pytest.approx(0.1, abs=glass.STEP_S)


def test_too_narrow_for_a_code() -> None:
    sizes = [(100, 60), (159, 90), (160, 90), (200, 10), (200, 30), (200, 31)]
    rooms = [glass.has_room(np.zeros((height, width, 3), np.uint8)) for width, height in sizes]
    assert rooms == [False, False, True, False, False, True]
    with pytest.raises(DataError, match=r"160 pixels or wider for a time code.*, got 100 x 60"):
        glass.paint(np.zeros((60, 100, 3), np.uint8), 1.0)
    with pytest.raises(DataError, match="not flatter than 6 : 1, got 200 x 10"):
        glass.paint(np.zeros((10, 200, 3), np.uint8), 1.0)


def test_a_planted_delay_of_100_ms(scene: U8) -> None:
    """In the sink's hands it has an age of 100 ms; what it needs itself (JPEG and back) shows in the second sink."""
    planted, own = glass.GlassSink(), glass.GlassSink()
    nothing = Detections(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        np.zeros((0, 28, 28), np.float32),
        (512, 288),
        ("a",),
    )
    for sink, delay_s in ((own, 0.0), (planted, 0.1)):
        for _ in range(5):
            now_s = time.monotonic()
            frame = Frame(coded(scene, now_s - delay_s), captured_s=now_s)
            sink.write(FrameResult(frame, nothing, SourceState("LIVE", 0.0)))
    assert len(planted.ages_ms) == len(own.ages_ms) == 5
    assert min(planted.ages_ms) - min(own.ages_ms) == pytest.approx(100, abs=5)
    assert min(own.ages_ms) < 50
