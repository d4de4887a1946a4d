"""`compare`: what is the same is 1, what is not shows where it begins, and bad input ends in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from tests.compare.conftest import flip, rename, shake
from tests.quick_model import quick_model
from trt_blendmask import cli, load
from trt_blendmask.compare import CompareReport, compare
from trt_blendmask.compare import stages as stages_module
from trt_blendmask.compare.measure import Measure
from trt_blendmask.compare.page import difference
from trt_blendmask.compare.stages import Seen
from trt_blendmask.quantize.agreement import compare_detections
from trt_blendmask.structures import Detections

Variant = Callable[[str, Callable[[onnx.ModelProto], None]], Path]


def run(other: Path, pictures: Path, output: Path, *more: str) -> int:
    words = ["compare", str(quick_model()), str(other), "--images", str(pictures), "-o", str(output / "c.html")]
    return cli.main([*words, *more])


def relative(report: CompareReport) -> dict[str, float]:
    return {stage.stage: stage.relative for stage in report.stages}


def test_a_model_agrees_wholly_with_itself(pictures: Path, tmp_path: Path) -> None:
    report = compare(quick_model(), quick_model(), str(pictures), tmp_path / "c.html")
    assert report.gate_values() == dict.fromkeys(("f1", "box_iou", "mask_iou", "boundary_f"), 1.0)
    assert report.agreement.matched > 10
    assert report.agreement.score_shift == report.score_bias == 0
    assert relative(report) == {"bases": 0, "boxes": 0, "attention": 0, "masks": 0}
    assert {f1 for row in report.f1_at.values() for f1 in row.values()} == {1.0}
    assert (report.worst, report.class_changes) == ((), ())
    assert run(quick_model(), pictures, tmp_path, "--fail-under", "f1=1,mask_iou=1,box_iou=1,boundary_f=1") == 0


def test_a_mirrored_model_hardly_agrees(
    pictures: Path, variant: Variant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(variant("flipped", flip), pictures, tmp_path, "--fail-under", "f1=0.97,mask_iou=0.97") == 65
    said = capsys.readouterr().err
    assert "Expected f1 >= 0.97" in said
    assert said.count("\n") == 1
    facts = json.loads((tmp_path / "c.json").read_text())
    assert facts["agreement"]["f1"] < 0.15
    page = (tmp_path / "c.html").read_text()
    assert page.count("data:image/jpeg") == len(facts["worst"]) == 3
    qualities = [worst["quality"] for worst in facts["worst"]]
    assert qualities == sorted(qualities)


def test_the_stage_where_it_starts_is_seen(pictures: Path, variant: Variant, tmp_path: Path) -> None:
    """Noise in the bases' branch leaves boxes and attention as they are; noise in the attention the bases."""
    bases = relative(compare(quick_model(), variant("bases", shake("basis.", 0.1)), str(pictures), tmp_path / "b.html"))
    assert bases["boxes"] == bases["attention"] == 0
    assert bases["bases"] > 0.01 < bases["masks"]
    top = relative(compare(quick_model(), variant("top", shake("top", 0.2)), str(pictures), tmp_path / "t.html"))
    assert top["bases"] == top["boxes"] == 0
    assert top["attention"] > 0.01 < top["masks"]


def test_the_agreement_is_that_of_quantize(pictures: Path, variant: Variant, tmp_path: Path) -> None:
    other = variant("fpn", shake("fpn.", 0.08))
    report = compare(quick_model(), other, str(pictures), tmp_path / "c.html")
    found = []
    for path in (quick_model(), other):
        with load(path) as model:
            found.append([model(cv2.imread(str(file))) for file in sorted(pictures.iterdir())])
    assert report.agreement == compare_detections(*found)
    assert report.f1_at[0.3][0.5] == report.agreement.f1
    assert all(0.001 < value < 0.1 for value in relative(report).values())  # other slots hold the same objects
    assert 0.3 < report.agreement.f1 < 1
    assert sum(row.matched for row in report.classes) == report.agreement.matched
    weights = [row.matched for row in report.classes]
    for name in ("mask_iou", "box_iou"):
        mean = np.average([getattr(row, name) for row in report.classes], weights=weights)
        assert mean == pytest.approx(getattr(report.agreement, name))
    assert np.average([row.boundary_f for row in report.classes], weights=weights) == pytest.approx(report.boundary_f)


def test_other_input_sizes_are_compared_in_the_picture(pictures: Path, tmp_path: Path) -> None:
    report = compare(quick_model(), quick_model((384, 640)), str(pictures), tmp_path / "c.html")
    assert report.agreement.f1 > 0.5
    assert report.agreement.box_iou > 0.85
    assert "bases" not in relative(report)
    assert any("384 x 640" in note for note in report.notes)


def test_classes_go_by_name(pictures: Path, variant: Variant, tmp_path: Path) -> None:
    with load(quick_model()) as model:
        names = model.spec.class_names
    turned = (*names[1:], names[0])
    report = compare(quick_model(), variant("turned", rename(turned)), str(pictures), tmp_path / "c.html")
    assert report.agreement.f1 < 0.3  # the numbers stayed and the names moved: now they are other things
    assert report.class_changes
    report = compare(quick_model(), variant("both", rename(turned, True)), str(pictures), tmp_path / "c.html")
    assert report.agreement.f1 == 1
    numbers = tuple(f"class {k}" for k in range(len(names)))
    report = compare(quick_model(), variant("numbers", rename(numbers)), str(pictures), tmp_path / "c.html")
    assert report.agreement.f1 == 1


def test_other_classes_are_refused(
    pictures: Path, variant: Variant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with load(quick_model()) as model:
        names = model.spec.class_names
    assert run(variant("dragons", rename(("dragon", *names[1:]))), pictures, tmp_path) == 65
    assert "'dragon'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(quick_model(), empty, tmp_path / "out") == 66
    assert run(quick_model(), tmp_path / "none", tmp_path / "out") == 66
    (empty / "a.png").write_bytes(b"no picture")
    assert run(quick_model(), empty, tmp_path / "out") == 65
    cv2.imwrite(str(empty / "b.png"), np.zeros((288, 512, 3), np.uint8))
    capsys.readouterr()
    assert run(quick_model(), empty, tmp_path / "out", "--fail-under", "f1=0.5") == 65
    captured = capsys.readouterr()
    assert "1 pictures cannot be read" in captured.out
    assert "neither finds" in captured.err


@pytest.mark.parametrize("text", ["f1", "f1=2", "speed=1", "f1=nan", ""])
def test_bounds_that_are_none(pictures: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(quick_model(), pictures, tmp_path, "--fail-under", text)
    assert stop.value.code == 2


def test_ctrl_c_writes_what_it_has(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    see = stages_module.Watched.__call__

    def stopping(self: stages_module.Watched, image: np.ndarray) -> Seen:
        calls.append(1)
        if len(calls) == 4:  # the second picture in the second model
            raise KeyboardInterrupt
        return see(self, image)

    monkeypatch.setattr(stages_module.Watched, "__call__", stopping)
    assert run(quick_model(), pictures, tmp_path) == 130
    assert "after 1 pictures" in capsys.readouterr().err
    facts = json.loads((tmp_path / "c.json").read_text())
    assert (facts["stopped"], facts["pictures"]) == (True, 1)


def one_object(of_class: int = 0, score: float = 0.9, x: float = 10) -> Detections:
    masks = np.ones((1, 14, 14), dtype=np.float32)
    box = np.array([[x, 10, x + 20, 30]], dtype=np.float32)
    return Detections(box, np.array([score], np.float32), np.array([of_class], np.int32), masks, (90, 60), ("a", "b"))


def test_changes_of_class_and_score_are_told() -> None:
    measure = Measure(0.3)
    image = np.zeros((60, 90, 3), np.uint8)
    for one, two in ((one_object(), one_object(1)), (one_object(), one_object(score=0.7))):
        measure.add("picture", image, Seen(one, None, None), Seen(two, None, None))
    assert measure.class_changes() == [("a", "b", 1)]
    assert measure.score_bias() == pytest.approx(-0.2)
    assert [(row.name, row.reference_count, row.other_count, row.matched) for row in measure.classes(("a", "b"))] == [
        ("a", 2, 1, 1),
        ("b", 0, 1, 0),
    ]
    assert measure.f1_at()[0.5][0.75] == 0.5


def test_the_difference_is_drawn_where_it_is() -> None:
    image = np.full((60, 90, 3), 100, np.uint8)
    drawn = difference(image, one_object(), one_object(x=15)).astype(int)
    red, blue = drawn[20, 12], drawn[20, 32]
    assert red[2] > red[0] + 100
    assert blue[0] > blue[2] + 100
    assert np.ptp(drawn[20, 22]) == np.ptp(drawn[5, 5]) == 0
