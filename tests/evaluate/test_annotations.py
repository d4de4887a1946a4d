"""Annotation files: those that other tools write are read, those that are none end in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.conftest import changed, command
from tests.quick_model import quick_model
from trt_blendmask.errors import InputMissingError
from trt_blendmask.evaluate import evaluate
from trt_blendmask.evaluate.annotations import read_annotations


def rename_all(document: dict[str, Any]) -> None:
    for category in document["categories"]:
        category["name"] = f"animal {category['id']}"


def other_size(document: dict[str, Any]) -> None:
    for image in document["images"]:
        image["width"] += 1
    document["annotations"] = []


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (rename_all, 65, "model's classes"),
        (other_size, 65, "do not belong together"),
        (lambda d: [i.update(file_name=f"other/{i['id']}.jpg") for i in d["images"]], 66, "do not belong together"),
        (lambda d: d.pop("images"), 65, "no 'images'"),
        (lambda d: d["annotations"][0].pop("bbox"), 65, "no 'bbox'"),
        (lambda d: d["annotations"][0].update(image_id="1"), 65, "no whole number as its image_id"),
        (lambda d: d["annotations"][0].update(image_id=99), 0, ""),
        (lambda d: d["annotations"][0].update(category_id=[1]), 65, "unknown category_id"),
        (lambda d: d["annotations"][0].update(segmentation={"size": [9, 9], "counts": [81]}), 65, "288 x 512"),
        (lambda d: d["annotations"][0].update(segmentation="x"), 65, "Expected a mask"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, None, 1]), 65, "four numbers"),
        (lambda d: d["annotations"][0].update(bbox=[0, 0, 10**400, 1]), 65, "four numbers"),
        (lambda d: d["annotations"][0].update(id=10**400), 65, "whole number"),
        (lambda d: d["images"].append(d["images"][0]), 65, "same id"),
        (lambda d: d["images"][0].update(file_name="a\0b"), 0, ""),
        (lambda d: d.update(annotations=[]), 0, ""),
    ],
)
def test_bad_annotations_end_in_a_sentence(
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], object],
    code: int,
    words: str,
) -> None:
    file = changed(scenes, tmp_path / "changed.json", change)
    output = tmp_path / "out"
    assert command(scenes, output, "--max", "2", annotations=file) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == (code != 0)
    assert output.exists() == (code == 0)


@pytest.mark.parametrize(
    "mask",
    [
        [],
        [[]],
        [[1, 2, 3]],
        [[0, 0, 1e300, 0, 5, 5]],
        [[0, 0, 9, 0, 5, float("nan")]],
        [[0, 0, 9e5, 0] * 1000],  # each point is near enough, but the outline would take gigabytes
        {},
        {"size": [288, 512], "counts": "zzzz"},
        {"size": [288, 512], "counts": "0"},
        {"size": [288, 512], "counts": [-5, 288 * 512 + 5]},
        {"size": [288, 512], "counts": "\u00e9"},
        {"size": [1 << 40, 1 << 40], "counts": [1 << 80]},
        3,
        None,
    ],
)
def test_masks_that_are_none_end_in_a_sentence(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mask: object
) -> None:
    file = changed(scenes, tmp_path / "changed.json", lambda d: d["annotations"][0].update(segmentation=mask))
    assert command(scenes, tmp_path / "out", annotations=file) == 65
    assert "masks of 288 x 512" in (said := capsys.readouterr().err) or "Expected a mask" in said


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"images": 3}', "\0\1"])
def test_other_files_are_refused(scenes: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    assert command(scenes, tmp_path / "out", annotations=file) == 65


def test_annotations_of_pictures_that_are_not_listed_are_left_out(scenes: Path, tmp_path: Path) -> None:
    """pycocotools never looks at them."""

    def stray(document: dict[str, Any]) -> None:
        row = next(row for row in document["annotations"] if row["image_id"] == 1)
        document["annotations"].append({**row, "id": 10**6, "image_id": 99})

    plain = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "plain", most=2)
    report = evaluate([quick_model()], changed(scenes, tmp_path / "c.json", stray), scenes, tmp_path / "out", most=2)
    assert report.models[0].mask == plain.models[0].mask
    assert [note for note in report.notes if note not in plain.notes] == [
        f"Of pictures that '{tmp_path / 'c.json'}' does not list, and left out: 1 annotation."
    ]


def crowds_only(document: dict[str, Any]) -> None:
    for row in document["annotations"]:
        row["iscrowd"] = 1


@pytest.mark.parametrize("change", [lambda d: d.update(annotations=[]), crowds_only])
def test_nothing_to_find_is_told(scenes: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    report = evaluate([quick_model()], changed(scenes, tmp_path / "c.json", change), scenes, tmp_path / "out", most=1)
    assert any("has no object to find" in line for line in report.lines())
    assert report.lines()[0].startswith("1 of 1 picture, ")
    plain = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "plain", most=1)
    assert not any("to find" in note for note in plain.notes)


def test_a_flat_folder_cannot_hold_two_of_a_name(scenes: Path, tmp_path: Path) -> None:
    """Or both would be judged on the same picture, and nobody would notice."""

    def two_of_a_name(document: dict[str, Any]) -> None:
        for image, folder in zip(document["images"], ("a", "b", "c", "d"), strict=True):
            image["file_name"] = f"{folder}/000000.png" if folder < "c" else f"images\\{Path(image['file_name']).name}"

    truth = read_annotations(changed(scenes, tmp_path / "c.json", two_of_a_name), scenes / "images")
    assert ([picture.image_id for picture in truth.pictures], truth.absent) == ([3, 4], 2)


def test_a_folder_whose_name_is_too_long_is_not_there(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="folder of pictures"):
        read_annotations(changed(scenes, tmp_path / "c.json", lambda _: None), tmp_path / ("n" * 300))


def test_what_windows_and_other_tools_write_is_read(scenes: Path, tmp_path: Path) -> None:
    """A byte order mark; annotations from 0 on, of which pycocotools takes the first for "no match"."""

    def from_zero(document: dict[str, Any]) -> None:
        document["images"] = document["images"][:1]
        rows = document["annotations"] = [row for row in document["annotations"] if row["image_id"] == 1]
        for k, row in enumerate(rows):
            row["id"] = k

    file = changed(scenes, tmp_path / "c.json", from_zero)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    report = evaluate([quick_model()], file, scenes, tmp_path / "out")
    assert any("never counts annotation 0" in note for note in report.notes)
