"""Cameras on this machine, which no test machine has: the logic on scripted stand-ins. V4L2 and CSI themselves are
unproven."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from trt_blendmask.errors import SourceUnavailableError, UsageError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import LiveOptions, camera, open_source
from trt_blendmask.runtime.sources.grammar import parse
from trt_blendmask.runtime.sources.live import LiveSource
from trt_blendmask.runtime.sources.reasons import LostError, loss_of

from .conftest import until
from .test_live import kinds, lost

pytestmark = pytest.mark.usefixtures("fast", "no_threads_left")
QUICK = LiveOptions(stale_s=0.3, open_s=0.2)


class FakeDevice:
    """What `av.open` gives for a video device: raw pictures until it is unplugged."""

    def __init__(self, frames: int, error: int) -> None:
        self.left, self.error, self.duration = frames, error, None
        self.format = SimpleNamespace(name="video4linux2,v4l2")
        codec = SimpleNamespace(name="rawvideo", width=32, height=24, sample_aspect_ratio=None)
        video = SimpleNamespace(average_rate=30, guessed_rate=30, thread_type="", codec_context=codec)
        video.sample_aspect_ratio = None
        self.streams = SimpleNamespace(video=[video])

    def demux(self, _video: object) -> Any:
        while self.left:
            time.sleep(0.01)
            self.left -= 1
            yield SimpleNamespace(decode=self._frames)
        raise av.error.OSError(self.error, "device")

    def _frames(self) -> list[Any]:
        frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), self.left % 256, np.uint8), format="bgr24")
        frame.pts, frame.time_base = 1000 - self.left, 1
        return [frame]

    def close(self) -> None:
        pass


def test_a_camera_is_unplugged_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def fake_open(file: str, options: dict[str, str], **_: object) -> FakeDevice:
        asked.append((file, options))
        if len(asked) in (2, 3):
            raise av.error.FileNotFoundError(errno.ENOENT, "No such file or directory")
        return FakeDevice(10 if len(asked) == 1 else 10**9, errno.ENODEV)

    monkeypatch.setattr(camera.av, "open", fake_open)
    events = Events()
    source = open_source("v4l2:///dev/video7?size=640x480&fps=15&format=mjpg", QUICK, events)
    assert isinstance(source, LiveSource)
    assert until(lambda: kinds(events).count("source_opened") == 2)
    assert lost(events) == ["unplugged"]
    assert "no such device" in "".join(e.text for e in events.history())
    assert asked[0] == ("/dev/video7", {"video_size": "640x480", "framerate": "15", "input_format": "mjpeg"})
    source.close()


def test_what_a_device_does_not_offer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_open(_file: str, **_: object) -> None:
        av.error.err_check(-errno.EINVAL)

    monkeypatch.setattr(camera.av, "open", fake_open)
    with pytest.raises(SourceUnavailableError, match="does not offer this size, rate or format"):
        open_source("v4l2:///dev/video7?size=1x1", LiveOptions(wait=False))


def test_the_lasting_name_of_a_device(tmp_path: Path) -> None:
    device, by_id = tmp_path / "video0", tmp_path / "by-id"
    device.touch()
    by_id.mkdir()
    assert camera.lasting_name(device, by_id) == device
    (by_id / "usb-Maker_Cam-video-index0").symlink_to(device)
    (by_id / "usb-Other-video-index0").symlink_to(tmp_path / "video1")
    assert camera.lasting_name(device, by_id).name == "usb-Maker_Cam-video-index0"
    assert camera.lasting_name(device, tmp_path / "none") == device


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EBUSY, "busy"), (errno.EACCES, "permission"), (errno.EINVAL, "format"), (errno.ENODEV, "unplugged")],
)
def test_what_a_device_says_is_told(number: int, reason: str) -> None:
    assert loss_of(av.error.OSError(number, "x")).reason == reason


class FakeCapture:
    """`cv2.VideoCapture` by script: pictures, then what OpenCV does when the camera is gone."""

    script: list[object]

    def __init__(self, pipeline: str, _api: int) -> None:
        self.pipeline, self.released = pipeline, False
        self._steps = iter(self.script)

    def isOpened(self) -> bool:  # noqa: N802
        return self.script != ["closed"]

    def get(self, _what: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        step = next(self._steps)
        if isinstance(step, threading.Event):
            step.wait(10)
            return False, None
        return (True, step) if isinstance(step, np.ndarray) else (False, None)

    def release(self) -> None:
        self.released = True


def test_a_wedged_csi_daemon_is_named() -> None:
    FakeCapture.script = ["closed"]
    with pytest.raises(LostError, match="systemctl restart nvargus-daemon"):
        camera.GstLine("nvarguscamerasrc", True, FakeCapture)
    FakeCapture.script = [np.zeros((4, 4, 3), np.uint8), "false"]
    line = camera.GstLine("nvarguscamerasrc", True, FakeCapture)
    assert line.read() is not None
    with pytest.raises(LostError, match=r"no more pictures.*nvargus"):
        line.read()


def test_a_hung_or_odd_capture_is_a_loss_and_no_end() -> None:
    hang = threading.Event()
    picture = np.zeros((24, 32, 3), np.uint8)
    scripts: list[list[object]] = [
        [picture, hang],
        [picture, np.zeros(7, np.uint8)],
        [picture, "false"],
        [picture] * 999,
    ]

    def connect(_left: threading.Event) -> camera.GstLine:
        FakeCapture.script = scripts.pop(0) if scripts else ["closed"]
        return camera.GstLine("videotestsrc", False, FakeCapture)

    events = Events()
    source = LiveSource("gst:videotestsrc", connect, QUICK, events)
    assert until(lambda: kinds(events).count("source_opened") == 4)
    assert lost(events)[:3] == ["stale", "format", "closed"]
    source.close()
    hang.set()


def test_pipelines() -> None:
    csi = camera.csi_pipeline(parse("csi://1?size=1280x720&fps=60&flip=2"))
    assert csi.startswith(
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1 !"
    )
    assert "flip-method=2" in csi
    for fps, rate in (("0.4", "2/5"), ("29.97", "2997/100"), ("0.002", "1/500")):
        assert f"framerate={rate} !" in camera.csi_pipeline(parse(f"csi://0?fps={fps}"))
    assert csi.endswith("appsink drop=true max-buffers=1 sync=false")
    assert camera.gst_pipeline(parse("gst:videotestsrc")).endswith("appsink drop=true max-buffers=1 sync=false")
    assert camera.gst_pipeline(parse("gst:a ! appsink")) == "a ! appsink"


@pytest.mark.parametrize(
    "text", ["csi://0?flip=9", "csi://0?fps=0.0001", "csi://0?size=wide", "0?fps=0", "0?format=raw", "0?size=0x4"]
)
def test_options_out_of_range(text: str) -> None:
    with pytest.raises(UsageError, match="Expected"):
        open_source(text)


def test_an_opencv_without_gstreamer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera.cv2, "getBuildInformation", lambda: "  GStreamer:      NO\n")
    with pytest.raises(SourceUnavailableError, match="needs an OpenCV with GStreamer"):
        open_source("gst:videotestsrc")
    monkeypatch.setattr(camera.cv2, "getBuildInformation", lambda: "  GStreamer:      YES (1.20.3)\n")
    camera.check_gstreamer("gst:videotestsrc")
