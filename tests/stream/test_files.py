"""Video files that are damaged, change their size, or keep no steady pace."""

from __future__ import annotations

import gc
import os
import re
import struct
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from trt_blendmask.errors import DataError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import open_source
from trt_blendmask.runtime.sources.decode import Shot, _turn_of
from trt_blendmask.runtime.sources.stamp import Stamp

from . import clips, frame_code
from .measures import resources


@pytest.mark.parametrize("seed", [3, 4])  # 3 makes up one more track
def test_flipped_bits_cost_few_frames(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "flipped.ts"
    path.write_bytes(clips.with_flipped_bits(clips.transport_stream(300), 80, seed))
    source = open_source(str(path))
    frames = list(source)
    assert len(frames) >= 297
    assert source.corrupt >= 10
    assert [f.index for f in frames] == list(range(len(frames)))
    numbers = [found[0] for f in frames if (found := frame_code.read(f.image))]
    assert len(numbers) > 100
    source.close()


def test_the_end_is_not_where_a_long_stretch_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "zeros.mp4"
    packets, content = clips.recording(path, 150), bytearray(path.read_bytes())
    begin, end = packets[30][1], packets[80][1]  # fifty packets in a row
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    key = next(i for i, (is_key, _, _) in enumerate(packets) if is_key and i >= 80)
    source = open_source(str(path))
    numbers = [found[0] for frame in source if (found := frame_code.read(frame.image))]
    assert {*range(30), *range(key, 150)} <= set(numbers)
    assert len(numbers) == len(set(numbers))
    assert source.corrupt >= 20
    source.close()


@pytest.mark.parametrize("earlier_s", [0.0, 3.0, 80.0])  # FFmpeg takes a minute back for the turn of MPEG-TS's clock
def test_times_go_on_where_those_of_a_joined_file_begin_again(tmp_path: Path, earlier_s: float) -> None:
    path, second = tmp_path / "joined.ts", clips.transport_stream(20, first=20)
    path.write_bytes(clips.transport_stream(20, begin_s=earlier_s) + second)
    source = open_source(str(path))
    frames = list(source)
    assert [frame_code.read(f.image) for f in frames] == [(i, 0) for i in range(40)]
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(40) / 25, atol=1e-4)
    source.close()


def recorded_times(pts_s: list[float | None], fps: float) -> list[float]:
    stamp, image = Stamp("file", Events().publish), np.zeros((24, 32, 3), np.uint8)
    return [stamp.recorded(Shot(image, one, 50.0, False), fps).time_s for one in pts_s]


def test_recorded_times_keep_their_gaps_and_only_grow() -> None:
    assert recorded_times([9, 9.04, 609.04, 609.08], 25) == pytest.approx([0, 0.04, 600.04, 600.08])
    assert recorded_times([9, 9.04, 90000, 90000.04, 3], 25) == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert recorded_times([9, None, 9.08, None], 25) == pytest.approx([0, 0.04, 0.08, 0.12])
    jittered = recorded_times([0, 0.04, 0.04, 0.03, 0.16, 0.2, 0.19, 0.28], 25)
    assert np.diff(jittered).min() > 1 / 90000
    assert jittered[-1] == pytest.approx(0.28)
    fast = recorded_times([i / 2000 for i in range(100)], 2000)
    assert fast == pytest.approx(np.arange(100) / 2000)


def test_another_size_in_the_middle_is_an_event_and_no_stretched_picture(tmp_path: Path) -> None:
    path, events = tmp_path / "joined.ts", Events()
    path.write_bytes(clips.transport_stream(20, (640, 480)) + clips.transport_stream(20, (640, 240), first=20))
    source = open_source(str(path), events=events)
    frames = list(source)
    assert [f.frame_wh for f in frames] == [(640, 480)] * 20 + [(640, 240)] * 20
    assert [frame_code.read(f.image) for f in frames] == [(i, 0) for i in range(40)]
    assert [(e.kind, e.details["to_wh"]) for e in events.history()] == [("format_changed", [640, 240])]
    source.close()


@pytest.mark.parametrize(("reordered", "frame_wh"), [(0, (640, 240)), (3, (640, 240)), (0, (320, 240))])
def test_another_shape_of_the_pixels_in_the_middle(tmp_path: Path, reordered: int, frame_wh: tuple[int, int]) -> None:
    parts = [((320, 240), Fraction(64, 45)), (frame_wh, Fraction(16, 15))]
    for number, (wh, aspect) in enumerate(parts):
        clips.recording(tmp_path / f"{number}.ts", 20, reordered=reordered, frame_wh=wh, pixel_aspect=aspect)
    (tmp_path / "a.ts").write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    source = open_source(str(tmp_path / "a.ts"))
    assert [(f.frame_wh, f.pixel_aspect) for f in source] == [parts[0]] * 20 + [parts[1]] * 20
    source.close()


@pytest.mark.parametrize("own", [Fraction(1), Fraction(64, 45)])
def test_the_container_has_the_last_word_on_the_shape_of_the_pixels(tmp_path: Path, own: Fraction) -> None:
    path = tmp_path / "a.mp4"
    clips.recording(path, 5, pixel_aspect=own)
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, content.index(b"pasp") + 4, 4, 3)
    path.write_bytes(content)
    source = open_source(str(path))
    assert {frame.pixel_aspect for frame in source} == {Fraction(4, 3)}
    source.close()


def test_times_of_a_variable_rate_are_kept(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.04, 0.2, 0.033, 1.5, 0.04, 0.04, 0.7])
    source = open_source(str(clips.at_times(tmp_path / "vfr.mkv", times)))
    np.testing.assert_allclose([f.time_s for f in source], times, atol=2e-3)
    source.close()


def test_close_from_another_thread_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "long.ts"
    path.write_bytes(clips.transport_stream(200))
    for _ in range(5):
        source = open_source(str(path))
        seen: list[int] = []
        thread = threading.Thread(target=lambda source=source, seen=seen: seen.extend(f.index for f in source))
        thread.start()
        time.sleep(0.01)
        source.close()
        thread.join(2)
        assert not thread.is_alive()
        assert len(seen) < 200


def test_frames_that_nobody_holds_are_gone_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(clips.transport_stream(60))
    source = open_source(str(path))
    frames = iter(source)
    gc.collect()
    gc.disable()  # what hangs together in a ring would stay until Python looks for such
    try:
        for _ in range(50):
            next(frames)
        assert sum(type(one).__name__ == "VideoFrame" for one in gc.get_objects()) < 10
    finally:
        gc.enable()
    source.close()


def test_no_frame_starts_threads_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(clips.transport_stream(60))
    source = open_source(str(path))
    threads = [resources()["threads"] for _ in source]
    assert max(threads) <= threads[0] + (os.cpu_count() or 1)
    source.close()


@pytest.mark.parametrize("name", ["a.mjpeg", "a.avi"])
def test_pictures_with_exif_are_shown_as_they_lie(tmp_path: Path, name: str) -> None:
    path, pictures = tmp_path / name, [clips.jpeg(i, orientation=6) for i in range(5)]
    path.write_bytes(b"".join(pictures))
    if name == "a.avi":
        with av.open(str(path), "w") as container:
            video = container.add_stream("mjpeg", rate=25)
            video.width, video.height, video.pix_fmt = 320, 240, "yuvj420p"
            for number, picture in enumerate(pictures):
                packet = av.Packet(picture)
                packet.stream, packet.pts, packet.dts = video, number, number
                packet.time_base = Fraction(1, 25)
                container.mux(packet)
    source = open_source(str(path))
    assert [frame_code.read(frame.image) for frame in source] == [(i, 0) for i in range(5)]
    assert source.corrupt == 0
    source.close()


def test_pictures_that_are_cut_short_are_shown_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mjpeg"
    whole = [bytes(5000), b"\r\n" + bytes(9), b"\xff" * 4, b"a trailer" * 999]  # what cameras put behind a picture
    path.write_bytes(b"".join(clips.jpeg(i) + more for i, more in enumerate(whole)))
    source = open_source(str(path))
    assert (len(list(source)), source.corrupt) == (4, 0)
    source.close()
    for begin in (b"", b"\xff\xfe\0\x08\xff\xda\xff\xd9.."):  # the end of a smaller picture in a comment
        pictures = [clips.jpeg(i, keep=0.4 if i in (3, 5) else 1.0) for i in range(8)]
        path.write_bytes(b"".join(one[:2] + begin + one[2:] for one in pictures))
        source = open_source(str(path))
        assert (len(list(source)), source.corrupt) == (8, 2)
        source.close()


def test_a_file_of_another_kind_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + bytes(200))
    with pytest.raises(DataError, match=r"a video in .*, but it is damaged or of a kind that is not read"):
        open_source(str(path))


def test_a_turn_is_known_though_something_beside_it_is_not() -> None:
    class Decoded:
        rotation = -90  # as PyAV counts

        @property
        def side_data(self) -> list[Any]:
            raise ValueError("31 is not a valid Type")

    assert _turn_of(Decoded()) == (False, 1)


def test_yuv4mpeg_that_ends_inside_a_frame_is_told(tmp_path: Path) -> None:
    path, frame = tmp_path / "a.y4m", b"FRAME\n" + bytes(32 * 24 * 3 // 2)
    content = b"YUV4MPEG2 W32 H24 F25:1 Ip A1:1 C420jpeg\n" + 3 * frame
    for size in (3, 7, 80, 81, 500, len(frame) - 1):
        path.write_bytes(content + frame[:size])
        assert told(path) == (3, ["source_ended_early"]), size


@pytest.mark.parametrize("more", clips.BEHIND_YUV4MPEG)
def test_yuv4mpeg_with_something_behind_it_is_whole(tmp_path: Path, more: bytes) -> None:
    path, frame = tmp_path / "a.y4m", b"FRAME\n" + bytes(32 * 24 * 3 // 2)
    path.write_bytes(b"YUV4MPEG2 W32 H24 F25:1 Ip A1:1 C420jpeg\n" + 3 * frame + more)
    source = open_source(str(path))
    assert (len(list(source)), source.cut_short) == (3, "")
    source.close()


FIRST = {"movflags": "+faststart"}  # the index, as of what is made for the web


@pytest.mark.parametrize(
    ("name", "keep", "muxer"),
    [("a.mp4", 0.5, FIRST), ("a.mp4", 0.8, FIRST), ("a.mov", 0.5, FIRST), ("a.mkv", 0.5, {}), ("a.avi", 0.5, {})],
)
def test_a_recording_that_breaks_off_is_told(tmp_path: Path, name: str, keep: float, muxer: dict[str, str]) -> None:
    path, events = tmp_path / name, Events()
    clips.recording(path, 250, "mpeg4" if name == "a.avi" else "libx264", **muxer)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    source = open_source(str(path), events=events)
    count = len(list(source))
    assert 50 < count < 225
    assert [event.kind for event in events.history()] == ["source_ended_early"]
    found = re.search(r"a\.\w{3}' whole, but it breaks off after (\d+\.\d) of 10\.0 s", source.cut_short)
    assert found
    assert float(found[1]) == pytest.approx(count / 25, abs=0.2)
    assert source.state().kind == "ENDED"
    source.close()


WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "index last": ("a.mp4", {}),
    "index first": ("a.mp4", FIRST),
    "reordered frames": ("a.mp4", {"reordered": 3}),
    "in fragments": ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "fragments with an index": ("a.mp4", {"movflags": "frag_keyframe+default_base_moof"}),
    "longer sound": ("a.mp4", {"sound_s": 9.0}),
    "longer sound, Matroska": ("a.mkv", {"sound_s": 9.0}),
    "Matroska": ("a.mkv", {"reordered": 3}),
    "Matroska as it is sent": ("a.mkv", {"live": "1"}),
    "AVI": ("a.avi", {"codec": "mpeg4"}),
    "AVI of pictures": ("a.avi", {"codec": "mjpeg"}),
    "broadcast": ("a.ts", {}),
    "bare": ("a.h264", {}),
    "bare pictures": ("a.mjpeg", {"codec": "mjpeg"}),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_recordings_are_not_told_to_break_off(tmp_path: Path, kind: str) -> None:
    name, options = WHOLE[kind]
    clips.recording(tmp_path / name, 100, **options)
    assert told(tmp_path / name) == (100, [])


def told(path: Path) -> tuple[int, list[str]]:
    """How many frames came, and what was told of them."""
    events = Events()
    source = open_source(str(path), events=events)
    count = len(list(source))
    source.close()
    assert bool(source.cut_short) == bool(events.history())
    return count, [event.kind for event in events.history()]


def test_times_that_make_no_recording_break_off(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.04, 0.2, 0.033, 1.5, 0.04, 0.04, 5.0])
    for name in ("a.mp4", "a.mkv"):
        assert told(clips.at_times(tmp_path / name, times)) == (8, [])
    part = tmp_path / "joined.ts"
    part.write_bytes(clips.transport_stream(20, begin_s=80) + clips.transport_stream(20))
    assert told(part)[0] == 40
    assert told(part)[1] == []


def test_a_recording_that_was_trimmed_by_its_edit_list_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    clips.recording(path, 100)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 8
    assert struct.unpack_from(">I", content, at) == (1,)  # a version of small numbers, and one entry
    scale = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    struct.pack_into(">II", content, at + 4, 1500, scale)  # a second and a half from the first second on
    path.write_bytes(content)
    count, kinds = told(path)
    assert 30 < count < 50
    assert kinds == []


def test_who_ends_the_reading_is_not_told_that_it_breaks_off(tmp_path: Path) -> None:
    path, events = tmp_path / "a.mp4", Events()
    clips.recording(path, 100, **FIRST)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path), events=events)
    frames = iter(source)
    next(frames)
    source.close()
    assert (list(frames), source.cut_short, events.history()) == ([], "", ())


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_every_frame_says_when_it_was_read(tmp_path: Path, keep: float) -> None:
    path, content = tmp_path / "cut.ts", clips.transport_stream(30)
    path.write_bytes(content[: int(len(content) * keep)])
    source, began = open_source(str(path)), time.monotonic()
    frames = list(source)
    assert 5 < len(frames) < 30
    assert all(began <= f.captured_s <= time.monotonic() and abs(f.wall_s - time.time()) < 60 for f in frames)
    assert {f.source for f in frames} == {str(path)}
    assert (source.live, source.dropped, source.state().kind) == (False, 0, "ENDED")
    source.close()
