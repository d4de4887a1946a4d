"""One video file: what it holds while it grows, when it is closed, and when the disk is full."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from trt_blendmask.errors import OutputError, UsageError
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.recording import growing, video
from trt_blendmask.runtime.recording.video import VideoFile, check_video_name, choose_encoder, shortcomings

Maker = Callable[..., Path]
SUFFIXES = pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
WH = (64, 48)


def grey(value: int, wh: tuple[int, int] = WH) -> np.ndarray:
    return np.full((wh[1], wh[0], 3), value, np.uint8)


def decode(path: Path) -> tuple[list[np.ndarray], list[float], list[bool]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert not any(frame.is_corrupt for frame in frames)
    images = [frame.to_ndarray(format="bgr24") for frame in frames]
    return images, [float(frame.time) for frame in frames], [frame.key_frame for frame in frames]


def boxes_of(path: Path) -> list[str]:
    """Names of the top-level boxes of an MP4."""
    content, at, names = path.read_bytes(), 0, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        names.append(content[at + 4 : at + 8].decode("ascii"))
        assert size >= 8
        at += size
    return names


class Disk:
    """Takes so many bytes, then has no space left."""

    def __init__(self, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room, self._write_all = room, growing.write_all
        monkeypatch.setattr(growing, "write_all", self.write_all)

    def write_all(self, descriptor: int, data: bytes) -> None:
        self._write_all(descriptor, bytes(data)[: self.room])
        self.room -= len(data)
        if self.room < 0:
            self.room = 0
            raise OSError(errno.ENOSPC, "No space left on device")


@SUFFIXES
@pytest.mark.parametrize(("turned", "shown"), [(False, Fraction(64, 45)), (True, Fraction(45, 64))])
def test_pixels_that_are_not_square_stay_so(
    stub_model: Maker, tmp_path: Path, suffix: str, turned: bool, shown: Fraction
) -> None:
    source, save = tmp_path / "source.mp4", tmp_path / f"out{suffix}"
    with av.open(str(source), "w") as container:
        made = container.add_stream("libx264", rate=25)
        made.width, made.height, made.pix_fmt = *WH, "yuv420p"
        made.codec_context.sample_aspect_ratio = Fraction(64, 45)
        container.mux(made.encode(av.VideoFrame.from_ndarray(grey(90), format="bgr24")))
        container.mux(made.encode())
    if turned:
        content = source.read_bytes()
        at = content.index(b"tkhd") + 44  # the display matrix
        source.write_bytes(content[:at] + struct.pack(">5i", 0, 1 << 16, 0, -1 << 16, 0) + content[at + 20 :])
    run(stub_model(), source, save)
    with av.open(str(save)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (WH[::-1] if turned else WH)
        assert stream.sample_aspect_ratio == shown


@SUFFIXES
def test_it_plays_while_it_grows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with closing(VideoFile(path, 5.0, WH)) as file:
        for i in range(10):
            file.write(grey(20 * i), i / 5)
            if i >= 2:
                images, times, _ = decode(path)  # all but the last frame, which waits for its duration
                assert [round(float(image.mean()) / 20) for image in images] == list(range(i))
                assert times[-1] == pytest.approx((i - 1) / 5, abs=1e-3)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len(decode(path)[0]) == 10


def test_a_closed_mp4_is_an_ordinary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with closing(VideoFile(path, 25.0, WH)) as file:
        for i in range(40):
            file.write(grey(i), i / 25)
        assert "moov" in boxes_of(path)
        assert "moof" in boxes_of(path)
    assert boxes_of(path) == ["ftyp", "free", "mdat", "moov"]


@SUFFIXES
def test_times_of_a_variable_rate_are_kept(tmp_path: Path, suffix: str) -> None:
    path, times = tmp_path / f"vfr{suffix}", [0.0, 0.04, 0.2, 0.2, 1.0, 1.04, 9.5, 9.6, 10.5]
    with closing(VideoFile(path, 25.0, WH)) as file:
        for i, time_s in enumerate(times):
            file.write(grey(25 * i), time_s)
    images, got, keys = decode(path)
    assert [round(float(i.mean()) / 25) for i in images] == list(range(9))
    np.testing.assert_allclose(got, times, atol=1.1e-3)
    assert keys == [True, False, False, False, True, False, True, False, True]  # one a second, by the clock


@SUFFIXES
def test_sizes_that_yuv420_cannot_hold(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"odd{suffix}"
    image = np.zeros((45, 61, 3), np.uint8)
    image[:, ::2] = 200
    with closing(VideoFile(path, 25.0, (61, 45))) as file:
        file.write(image, 0.0)
    images, _, _ = decode(path)
    assert images[0].shape == (46, 62, 3)
    assert np.abs(images[0][:45, :61].astype(int) - image).mean() < 12  # not resampled: the stripes stand


def test_a_frame_too_large_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"at most 16384 pixels a side, got 16386 x 2.*Scale"):
        VideoFile(tmp_path / "a.mp4", 25.0, (16386, 2))
    assert list(tmp_path.iterdir()) == []


@SUFFIXES
@pytest.mark.parametrize("room", [2000, 9000, 40_000])
def test_a_full_disk_leaves_what_can_be_played(
    tmp_path: Path, suffix: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rng, disk = tmp_path / f"a{suffix}", np.random.default_rng(0), Disk(room, monkeypatch)
    file = VideoFile(path, 25.0, WH)
    written = 0
    with pytest.raises(OutputError, match=r"No space left on device\. Choose another place with --save"):
        for i in range(200):
            file.write(rng.integers(0, 255, (48, 64, 3), np.uint8), i / 25)
            written += 1
    disk.room = 10**9  # room again: the end of a file of which the middle is missing must not be written
    file.close()
    assert path.stat().st_size <= room
    if written > 2:
        assert len(decode(path)[0]) in (written - 1, written)


@SUFFIXES
def test_a_disk_that_is_full_at_the_very_end(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a{suffix}"
    file = VideoFile(path, 25.0, WH)
    for i in range(30):
        file.write(grey(i), i / 25)
    Disk(10, monkeypatch)
    with pytest.raises(OutputError, match="No space left"):
        file.close()
    assert len(decode(path)[0]) >= 29


@SUFFIXES
def test_without_h264_it_is_mpeg4_and_said(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = av.codec.Codec
    monkeypatch.setattr(av.codec, "Codec", lambda name, mode: codec("none" if "264" in name else name, mode))
    path, times = tmp_path / f"a{suffix}", [0.0, 1 / 30, 0.1, 2.5, 2.6]
    assert choose_encoder().name == "mpeg4"
    assert "no H.264 encoder, so it will be MPEG-4 Visual" in shortcomings(path, choose_encoder())
    with closing(VideoFile(path, 30.0, WH)) as file:
        for i, time_s in enumerate(times):
            file.write(grey(40 * i), time_s)
    images, got, keys = decode(path)
    assert [round(float(i.mean()) / 40) for i in images] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(got, times, atol=1.1e-3)
    assert keys[3]


def test_without_any_encoder_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = av.codec.Codec
    monkeypatch.setattr(av.codec, "Codec", lambda _name, mode: codec("none", mode))
    with pytest.raises(OutputError, match=r"one of the video encoders libx264, libopenh264, mpeg4.*pip install av"):
        choose_encoder()


def test_an_ffmpeg_without_hybrid_fragments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_HYBRID_SINCE", (999, 0))
    path = tmp_path / "a.mp4"
    assert "save as .mkv" in shortcomings(path, choose_encoder())
    assert shortcomings(tmp_path / "a.mkv", choose_encoder()) == ""
    with closing(VideoFile(path, 25.0, WH)) as file:
        for i in range(10):
            file.write(grey(i), i / 25)
        assert len(decode(path)[0]) == 9
    assert len(decode(path)[0]) == 10
    assert "moof" in boxes_of(path)


@pytest.mark.parametrize("name", ["a.avi", "a", "mp4", "a.mp4.txt"])
def test_other_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"ending in \.mp4 or \.mkv, got"):
        check_video_name(Path(name))
