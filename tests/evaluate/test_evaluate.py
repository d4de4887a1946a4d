"""`eval` as a user meets it: what it writes, notes and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.evaluate.conftest import changed, command
from tests.quick_model import quick_model
from trt_blendmask import evaluate as evaluate_module
from trt_blendmask.errors import InputMissingError
from trt_blendmask.evaluate import _labels, evaluate
from trt_blendmask.evaluate import confusion as confusion_module
from trt_blendmask.evaluate.annotations import Annotations, read_annotations
from trt_blendmask.evaluate.class_names import places
from trt_blendmask.evaluate.confusion import Confusion
from trt_blendmask.runtime import model as model_module
from trt_blendmask.runtime.images import read_image
from trt_blendmask.structures import Detections


def test_writes_page_facts_curves_and_confusion(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again" / quick_model().name
    again.parent.mkdir()
    shutil.copy(quick_model(), again)
    assert command(scenes, tmp_path / "out", "--max", "1") == 0
    assert "mask" in capsys.readouterr().out
    report = evaluate([quick_model(), again], scenes / "annotations.json", scenes, tmp_path / "two", most=2)
    names = {file.name for file in (tmp_path / "two").iterdir()}
    stem = quick_model().stem
    assert {"eval.html", "eval.json", f"{stem}_1.mask.json", f"{stem}_2.confusion.svg"} <= names
    assert len(names) == 10
    drawing = (tmp_path / "two" / f"{stem}_1.confusion.svg").read_text()
    assert set(re.findall(r'class="(\w+)"', drawing)) <= set(re.findall(r"svg \.(\w+)", drawing))
    page = report.files[0].read_text()
    assert page.count("data:image/jpeg") >= 2
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    one, two = report.models
    assert one.mask == two.mask
    assert one.median_ms > 0
    rows = json.loads((scenes / "annotations.json").read_text())["annotations"]
    assert one.confusion.matrix[:-1].sum() == sum(row["image_id"] <= 2 for row in rows)


def test_pictures_in_a_flat_folder_are_found(scenes: Path, tmp_path: Path) -> None:
    assert command(scenes / "images", tmp_path, "--max", "1", annotations=scenes / "annotations.json") == 0


def test_models_of_one_name_keep_files_of_their_own() -> None:
    assert _labels([Path("a/m.onnx"), Path("b/m.engine"), Path("m_1.onnx")]) == ["m_1", "m_2", "m_1_3"]
    assert _labels([Path("a.int8.onnx"), Path("b.onnx")]) == ["a.int8", "b"]


def test_a_picture_that_goes_away_is_left_out(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: Path) -> np.ndarray:
        if file.name == "000000.png":
            raise InputMissingError("gone")
        if file.name == "000001.png":
            raise OSError("the network folder does not answer")
        return read_image(file)

    monkeypatch.setattr(evaluate_module, "read_image", read)
    report = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "out", most=3)
    assert (report.pictures, report.unreadable) == (1, 2)


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module.Model, "infer", lambda *_: pytest.fail("worked in vain"))
    (tmp_path / "file").write_text("")
    assert command(scenes, tmp_path / "file" / "out") == 74


def test_ctrl_c_takes_no_half_of_a_picture(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between the results of the first picture and its confusion: the picture counts in both."""
    add = Confusion.add

    def interrupted(self: Confusion, *rest: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        add(self, *rest)

    monkeypatch.setattr(Confusion, "add", interrupted)
    report = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "out")
    assert (report.stopped, report.pictures) == (True, 1)
    objects = json.loads((scenes / "annotations.json").read_text())["annotations"]
    assert report.models[0].confusion.matrix[:-1].sum() == sum(row["image_id"] == 1 for row in objects)


def test_ctrl_c_during_the_scores_keeps_the_results(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_module, "score", interrupted)
    assert command(scenes, tmp_path / "out", "--max", "1") == 130
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        f"{quick_model().stem}.{kind}.json" for kind in ("box", "mask")
    }


def test_unreadable_and_absent_pictures_are_told(scenes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "scenes"
    shutil.copytree(scenes, copy)
    (copy / "images" / "000001.png").write_bytes(b"no picture")
    (copy / "images" / "000002.png").unlink()
    cv2.imwrite(str(copy / "images" / "000003.png"), np.zeros((20, 30, 3), np.uint8))
    report = evaluate([quick_model()], copy / "annotations.json", copy, tmp_path / "out")
    assert (report.pictures, report.wanted, report.absent, report.unreadable) == (1, 4, 1, 2)
    facts = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert sum("left out" in note for note in facts["notes"]) == 2


def test_ctrl_c_writes_what_it_has(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    infer = model_module.Model.infer

    def stopping(self: model_module.Model, images: np.ndarray) -> dict[str, np.ndarray]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return infer(self, images)

    monkeypatch.setattr(model_module.Model, "infer", stopping)
    assert command(scenes, tmp_path) == 130
    assert "after 2 pictures" in capsys.readouterr().err
    facts = json.loads((tmp_path / "eval.json").read_text())
    assert (facts["stopped"], facts["pictures"]) == (True, 2)
    monkeypatch.undo()
    two = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "two", most=2)
    assert facts["models"][0]["mask"]["overall"] == two.models[0].mask.overall


def test_missing_things_are_named(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(scenes, tmp_path / "out", annotations=tmp_path / "none.json") == 66
    assert command(tmp_path / "none", tmp_path / "out", annotations=scenes / "annotations.json") == 66
    assert "--images DIR" in capsys.readouterr().err


def test_without_pycocotools_it_says_what_to_install(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    assert command(scenes, tmp_path / "out") == 2
    assert "pip install 'trt-blendmask[eval]'" in capsys.readouterr().err


def test_classes_are_matched_by_name_not_by_number(scenes: Path, tmp_path: Path) -> None:
    def shuffle(document: dict[str, Any]) -> None:
        count = len(document["categories"])
        new = {k: 100 + (7 * k) % count for k in range(1, count + 1)}
        for category in document["categories"]:
            category["id"] = new[category["id"]]
        for row in document["annotations"]:
            row["category_id"] = new[row["category_id"]]

    file = changed(scenes, tmp_path / "shuffled.json", shuffle)
    same = [
        evaluate([quick_model()], path, scenes, tmp_path / path.stem, most=1).models[0]
        for path in (file, scenes / "annotations.json")
    ]
    assert same[0].mask.overall["AP"] == pytest.approx(same[1].mask.overall["AP"], abs=1e-12)
    assert same[0].mask.per_class.keys() == same[1].mask.per_class.keys()


def test_classes_without_counterpart_are_noted(scenes: Path, tmp_path: Path) -> None:
    file = changed(scenes, tmp_path / "one.json", lambda d: d["categories"][0].update(name="dragon"))
    report = evaluate([quick_model()], file, scenes, tmp_path / "out", most=1)
    assert [("not annotated" in note, "dragon" in note) for note in report.notes] == [(True, False), (False, True)]


def test_only_classes_that_are_there_are_missed(scenes: Path, tmp_path: Path) -> None:
    unicorn = {"id": 77, "name": "unicorn"}
    file = changed(scenes, tmp_path / "unicorn.json", lambda d: d["categories"].append(unicorn))
    assert not evaluate([quick_model()], file, scenes, tmp_path / "out", most=1).notes
    file = changed(scenes, tmp_path / "one.json", lambda d: d["categories"][0].update(name="dragon"))
    assert len(evaluate([quick_model()] * 2, file, scenes, tmp_path / "two", most=1).notes) == 2


def test_places() -> None:
    assert places(["b", "A", "c"], ["a", "B"]) == [1, 0, None]
    assert places(["class 0", "class 1"], ["x", "y"]) == [0, 1]
    assert places(["class 0"], ["x", "y"]) == [None]
    assert places(["a", "A"], ["A", "a"]) == [1, 0]
    assert places(["A", "a", "b"], ["A", "B", "c"]) == [0, None, 1]
    assert places(["a", "a"], ["a", "a"]) == [0, 1]


def found(*rows: tuple[float, float, int, float]) -> Detections:
    """Squares of 20 pixels: x, y, class, score."""
    xyxy = np.array([[x, y, x + 20, y + 20] for x, y, *_ in rows], np.float32).reshape(-1, 4)
    return Detections(
        xyxy,
        np.array([row[3] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
        np.ones((len(rows), 14, 14), np.float32),
        (100, 100),
        ("a", "b"),
    )


def tiny(tmp_path: Path, objects: list[tuple[float, float, int, int]]) -> Annotations:
    """Squares of 20 pixels: x, y, category (1 or 2), crowd."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 100, 3), np.uint8))
    rows = [
        {"id": k, "image_id": 1, "category_id": c, "bbox": [x, y, 20, 20], "area": 400, "iscrowd": crowd,
         "segmentation": [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]}
        for k, (x, y, c, crowd) in enumerate(objects, 1)
    ]  # fmt: skip
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": rows,
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    return read_annotations(tmp_path / "coco.json", tmp_path)


def test_confusion_counts_each_failure_where_it_belongs(tmp_path: Path) -> None:
    truth = tiny(tmp_path, [(0, 0, 1, 0), (40, 0, 1, 0), (0, 40, 2, 0), (70, 70, 2, 1)])
    confusion = Confusion(truth, [1, 2])
    seen = found((0, 0, 0, 0.9), (40, 2, 1, 0.9), (70, 70, 1, 0.9), (40, 70, 0, 0.9), (0, 40, 1, 0.4))
    confusion.add(1, "a.png", np.zeros((100, 100, 3), np.uint8), seen)
    assert confusion.matrix.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    (worst,) = confusion.worst()
    assert (worst.missed, worst.false, worst.confused) == (1, 1, 1)
    before = confusion.matrix.copy()
    confusion.add(1, "a.png", np.zeros((100, 100, 3), np.uint8), found((-40, 0, 0, 0.9), (0, 120, 1, 0.9)))
    assert (confusion.matrix - before)[-1].sum() == 0, "outside the picture, where COCO results have nothing either"


def test_the_gallery_keeps_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion_module, "GALLERY", 2)
    confusion = Confusion(tiny(tmp_path, [(0, 0, 1, 0)]), [1, 2])
    for name, wrong in (("one", 1), ("three", 3), ("none", 0), ("two", 2)):
        seen = found((0, 0, 0, 0.9), *((30, 22 * k, 1, 0.8) for k in range(wrong)))
        confusion.add(1, name, np.zeros((100, 100, 3), np.uint8), seen)
    assert [failure.name for failure in confusion.worst()] == ["three", "two"]
