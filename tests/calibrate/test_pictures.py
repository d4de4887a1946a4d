"""Which pictures are taken: from folders, lists and videos, and how an empty belt fares among others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.calibrate.conftest import picture
from trt_blendmask.calibrate.diverse import describe, farthest
from trt_blendmask.calibrate.pictures import choose, open_pictures
from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.synthetic import Conveyor, expose


def belt(seed: int, frames: int, empty: bool) -> list[np.ndarray]:
    """Frames of a synthetic belt, a fifth of a second apart; `empty`: the same moving belt without a part on it."""
    conveyor = Conveyor(seed, (256, 144), 25.0)
    if not empty:
        return [conveyor.frame(5 * i).image for i in range(frames)]
    traffic = conveyor._traffic
    noise = np.random.default_rng(seed)
    return [expose(traffic.background(i / 5), traffic.camera(i / 5, 0.04), noise) for i in range(frames)]


def descriptors(frames: list[np.ndarray]) -> np.ndarray:
    return np.stack([describe(np.ascontiguousarray(frame)) for frame in frames])


@pytest.mark.parametrize("seed", [1, 7])
def test_an_empty_belt_is_chosen_once_or_twice(seed: int) -> None:
    """80 empty frames before 20 with parts: evenly spread 20 would be 16 empty ones."""
    frames = belt(seed, 80, empty=True) + belt(seed, 20, empty=False)
    chosen = farthest(descriptors(frames), 20, 0)
    assert sum(i < 80 for i in chosen) <= 2
    assert len(set(chosen)) == len(chosen)


def test_copies_are_not_chosen_to_make_up_the_number() -> None:
    still = [picture(1)] * 200
    chosen = farthest(descriptors([*still, *(picture(i) for i in range(2, 12))]), 150, 4)
    assert len(chosen) == 11
    assert len(farthest(descriptors(still), 150, 4)) == 4  # unless there are no others


def test_the_choice_does_not_depend_on_the_order() -> None:
    rows = descriptors([picture(i) for i in range(60)])
    order = np.random.default_rng(1).permutation(60)
    assert sorted(order[farthest(rows[order], 20, 4)]) == sorted(farthest(rows, 20, 4))


def test_even_choice_spreads_over_all(folder: Path) -> None:
    pictures = open_pictures(str(folder))
    assert choose(pictures, 8, False, lambda: None) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert choose(pictures, 512, False, lambda: None) == list(range(40))
    names = [p.name for p in pictures.read({1, 2, 10})]
    assert [Path(name).name for name in names] == ["1.png", "2.png", "10.png"]


def test_a_list_names_paths_relative_to_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    cv2.imwrite(str(tmp_path / "sub" / "a b.png"), picture(3))
    listed = tmp_path / "train.txt"
    listed.write_text(f"# what the night shift saw\n\nsub/a b.png\n{folder / '4.png'}\nsub/missing.png\n")
    read = list(open_pictures(str(listed)).read())
    assert [p.image is None for p in read] == [False, False, True]
    np.testing.assert_array_equal(read[0].image, picture(3))


def test_a_video_is_read_as_often_as_asked() -> None:
    pictures = open_pictures("synthetic:conveyor?seed=3&fps=5&size=128x72&seconds=4")
    assert pictures.total == 20
    first, again = list(pictures.read({2, 5})), list(pictures.read({5}))
    assert [p.index for p in first] == [2, 5]
    assert first[1].sha256 == again[0].sha256 != first[0].sha256
    assert choose(pictures, 5, False, lambda: None) == [0, 4, 8, 12, 16]


def test_blank_pictures_are_seen() -> None:
    def is_blank(image: np.ndarray) -> bool:
        from trt_blendmask.calibrate.pictures import Picture

        return Picture(0, "", "", image).is_blank

    assert is_blank(np.zeros((40, 50, 3), np.uint8))
    assert is_blank(np.full((40, 50, 3), (3, 90, 200), np.uint8))
    assert not is_blank(picture(1))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nothing", InputMissingError),
        ("n" * 300, InputMissingError),
        ("empty", InputMissingError),
        ("bytes.txt", DataError),
    ],
)
def test_what_is_no_picture_is_refused(name: str, error: type[Exception], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(error):
        open_pictures(str(tmp_path / name))
    with pytest.raises(UsageError):
        open_pictures("synthetic:moon")
