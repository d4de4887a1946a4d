"""Sources: frames as the file shows them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from trt_blendmask.errors import InputMissingError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import open_source
from trt_blendmask.runtime.sources.grammar import fitting

Maker = Callable[..., Path]


def test_video(clip: Maker) -> None:
    with closing(open_source(str(clip(frames=5, fps=50)))) as source:
        assert (source.fps, source.frame_count) == (50, 5)
        frames = list(source)
    assert [f.frame_wh for f in frames] == [(160, 120)] * 5
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(5) / 50, atol=1e-6)
    np.testing.assert_allclose(
        [f.image[60, 80, 0] for f in frames], 40 + 12 * np.arange(5), atol=5
    )  # the encoder rounds down
    assert np.abs(frames[0].image[4, 4].astype(int) - (0, 0, 255)).max() < 12  # BGR: the corner is red


@pytest.mark.parametrize(
    ("matrix", "red_corner"),
    [
        ((0, 1, -1, 0), "right top"),
        ((-1, 0, 0, -1), "right bottom"),
        ((0, -1, 1, 0), "left bottom"),
        ((-1, 0, 0, 1), "right top"),  # mirrored, left to right
        ((1, 0, 0, -1), "left bottom"),
        ((0, 1, 1, 0), "left top"),
        ((0, -1, -1, 0), "right bottom"),
    ],
)
def test_a_turned_phone(clip: Maker, matrix: tuple[int, ...], red_corner: str) -> None:
    path = clip(frames=2, wh=(160, 96))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44  # the 3x3 display matrix of the track header, 16.16 fixed point
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        content[at + place : at + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    image = next(iter(open_source(str(path)))).image
    assert image.shape == ((96, 160, 3) if matrix[0] else (160, 96, 3))
    corners = {
        f"{side} {end}": image[
            slice(2, 8) if end == "top" else slice(-8, -2), slice(2, 8) if side == "left" else slice(-8, -2)
        ]
        for side in ("left", "right")
        for end in ("top", "bottom")
    }
    redness = {name: float(c[..., 2].mean() - c[..., 0].mean()) for name, c in corners.items()}
    assert max(redness, key=redness.__getitem__) == red_corner


def test_pattern_and_single_picture(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        cv2.imwrite(str(tmp_path / f"p{number}.png"), np.zeros((8, 8, 3), np.uint8))
    assert [f.name for f in open_source(str(tmp_path / "p*.png"))] == ["p1.png", "p2.png", "p10.png"]
    assert [f.name for f in open_source(str(tmp_path / "p2.png"))] == ["p2.png"]
    with pytest.raises(InputMissingError, match="there are none"):
        open_source(str(tmp_path / "q*.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissingError, match="there are none"):
        open_source(str(tmp_path / "empty"))


def test_patterns_of_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("p1.png", "p10.png", "a/p2.png", "b/p3.png", "b/c/p4.png", "[x]/p5.png", "x/p6.png", "x/p?.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "clip.mp4").write_bytes(b"no picture")
    for text, numbers in {
        "p?.png": "1",
        "p??.png": "10",
        "?/p[23].png": "2 3",
        "*/p?.png": "5 2 3 6 ?",
        "b/**/*.png": "4 3",  # in the order of their folders
        "**/p[2-4].png": "2 4 3",
        "**": "5 2 4 3 1 10 6 ?",
        "[x]/*.png": "5",  # a folder of that name
        "[xy]/p[56].png": "6",
        "x/p?.png": "?",  # a file of that name
    }.items():
        monkeypatch.chdir("/")
        assert [f.name for f in open_source(str(tmp_path / text))] == [f"p{one}.png" for one in numbers.split()], text
        monkeypatch.chdir(tmp_path)
        assert [f.name for f in open_source(text)] == [f"p{one}.png" for one in numbers.split()], text
    with pytest.raises(InputMissingError, match="Name videos one by one"):
        open_source("clip*.mp4")


def test_links_in_a_circle_give_each_picture_once(tmp_path: Path) -> None:
    for name in ("p1.png", "a/p2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "loop").symlink_to(".")
    for text in ("**/*.png", "**", "**/p?.png"):
        assert fitting_pictures(tmp_path / text) == [tmp_path / "a/p2.png", tmp_path / "p1.png"], text


def fitting_pictures(pattern: Path) -> list[Path]:
    return sorted(file for file in fitting(str(pattern)) if file.suffix)


def test_a_pattern_means_pictures_as_a_folder_does(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "b").mkdir()
    (tmp_path / "d.png").mkdir()
    (tmp_path / "notes.txt").write_text("none")
    for text in (str(tmp_path / "*"), str(tmp_path)):
        source = open_source(text)
        assert ([f.name for f in source], source.frame_count, source.corrupt) == (["a.png", "c.png"], 2, 0)


def test_pictures_of_different_sizes_are_told_once(tmp_path: Path) -> None:
    for number, width in enumerate((8, 8, 16, 24, 8)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((8, width, 3), np.uint8))
    events = Events()
    assert len(list(open_source(str(tmp_path), events=events))) == 5
    told = [(e.kind, e.details["from_wh"], e.details["to_wh"]) for e in events.history()]
    assert told == [("format_changed", [8, 8], [16, 8])]


def test_a_picture_that_is_gone_meanwhile_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    source = open_source(str(tmp_path))
    (tmp_path / "b.png").unlink()
    assert ([f.name for f in source], source.corrupt) == (["a.png", "c.png"], 1)
    gone = open_source(str(tmp_path))
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(InputMissingError, match="no such file"):
        list(gone)


def test_synthetic() -> None:
    source = open_source("synthetic:conveyor?seed=3&fps=10&size=128x72&seconds=0.3")
    frames = list(source)
    assert source.frame_count == len(frames) == 3
    assert frames[0].image.shape == (72, 128, 3)
    assert [f.time_s for f in frames] == pytest.approx([0, 0.1, 0.2])
    again = list(open_source("synthetic:conveyor?seed=3&fps=10&size=128x72&seconds=0.3"))
    np.testing.assert_array_equal(frames[2].image, again[2].image)


def test_a_name_that_looks_like_an_address(clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(name="clip.mp4").rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source("12:30.mp4"))) == 12


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_name_that_is_too_long(suffix: str) -> None:
    with pytest.raises(InputMissingError, match="too long"):
        open_source("x" * 300 + suffix)


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(InputMissingError, match="cannot be read: Permission denied"):
        open_source(str(tmp_path))
