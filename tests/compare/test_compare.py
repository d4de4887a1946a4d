"""`compare`: what is the same is 1, what is not shows where it begins, and bad input ends in a sentence."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from tests.compare.conftest import flip, rename, shake
from tests.quick_model import quick_model
from trt_blendmask import cli, load
from trt_blendmask.agreement import compare_detections
from trt_blendmask.compare import CompareReport, compare, renaming, require
from trt_blendmask.compare import stages as stages_module
from trt_blendmask.compare.measure import Measure
from trt_blendmask.compare.page import difference
from trt_blendmask.compare.stages import Seen
from trt_blendmask.errors import DataError
from trt_blendmask.runtime.model import Model
from trt_blendmask.runtime.panels import figure
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
    assert (
        run(quick_model(), pictures, tmp_path, "-n", "1", "--fail-under", "f1=1,mask_iou=1,box_iou=1,boundary_f=1") == 0
    )


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
    bases = relative(
        compare(quick_model(), variant("bases", shake("basis.", 0.1)), str(pictures), tmp_path / "b.html", n=1)
    )
    assert bases["boxes"] == bases["attention"] == 0
    assert bases["bases"] > 0.01 < bases["masks"]
    top = relative(compare(quick_model(), variant("top", shake("top", 0.2)), str(pictures), tmp_path / "t.html", n=1))
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
    report = compare(quick_model(), variant("turned", rename(turned)), str(pictures), tmp_path / "c.html", n=1)
    assert report.agreement.f1 < 0.3  # the numbers stayed and the names moved: now they are other things
    assert report.class_changes
    report = compare(quick_model(), variant("both", rename(turned, True)), str(pictures), tmp_path / "c.html", n=1)
    assert report.agreement.f1 == 1
    numbers = tuple(f"class {k}" for k in range(len(names)))
    report = compare(quick_model(), variant("numbers", rename(numbers)), str(pictures), tmp_path / "c.html", n=1)
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
    assert "1 picture cannot be read and was left out." in captured.out
    assert "neither finds" in captured.err


def test_nothing_found_is_no_agreement(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(quick_model(), pictures, tmp_path, "-n", "1", "--score", "0.999") == 0
    told = capsys.readouterr().out
    assert "1 picture at score 0.999: neither model found anything" in told
    assert "1.0000" not in told
    assert "neither model found anything" in (tmp_path / "c.html").read_text()
    facts = json.loads((tmp_path / "c.json").read_text())["agreement"]
    assert [facts[name] for name in ("f1", "box_iou", "mask_iou", "boundary_f", "matched")] == [None] * 4 + [0]


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
    assert "after 1 picture;" in capsys.readouterr().err
    facts = json.loads((tmp_path / "c.json").read_text())
    assert (facts["stopped"], facts["pictures"]) == (True, 1)


def test_ctrl_c_takes_no_half_of_a_picture(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes when the first picture is half counted: the report is of one picture, wholly."""
    note = Measure._note_pairs

    def interrupted(self: Measure, *rest: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        note(self, *rest)

    monkeypatch.setattr(Measure, "_note_pairs", interrupted)
    report = compare(quick_model(), quick_model(), str(pictures), tmp_path / "c.html")
    assert (report.stopped, report.pictures) == (True, 1)
    assert sum(row.matched for row in report.classes) == report.agreement.matched > 0
    assert report.boundary_f == 1


def test_a_box_without_area_is_no_object(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no IoU with anything, not with itself either."""
    infer = Model.infer

    def flat(self: Model, images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {name: values.copy() for name, values in infer(self, images).items()}
        outputs["boxes"][0, 0, 2] = outputs["boxes"][0, 0, 0]
        outputs["boxes"][0, 1] += 1e5
        return outputs

    monkeypatch.setattr(Model, "infer", flat)
    report = compare(quick_model(), quick_model(), str(pictures), tmp_path / "c.html", n=1)
    assert set(report.gate_values().values()) == {1.0}
    assert relative(report)["attention"] == 0


def test_outputs_over_inputs_are_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / "model.engine"
    (passport := tmp_path / "model.engine.json").write_text("the passport")
    words = ["compare", str(quick_model()), str(engine), "--images", str(pictures), "-o"]
    assert cli.main([*words, str(tmp_path / "model.engine.html")]) == 2
    assert cli.main([*words, str(pictures / "0.png")]) == 2
    assert "-o compare.html" in capsys.readouterr().err
    assert cli.main([*words, str(tmp_path / "c.json")]) == 2
    assert cli.main([*words, "."]) == 74
    assert "got the folder '.'" in capsys.readouterr().err
    assert passport.read_text() == "the passport"


def test_a_pipe_is_no_model(pictures: Path, tmp_path: Path) -> None:
    """Who opens one waits for a writer, for ever."""
    os.mkfifo(tmp_path / "pipe.onnx")
    assert run(tmp_path / "pipe.onnx", pictures, tmp_path / "out") == 66


def test_a_model_that_fails_later_is_named(tmp_path: Path) -> None:
    """Not the copy that shows its bases and attention, which is gone by then."""
    (tmp_path / "mine.onnx").write_bytes(quick_model().read_bytes())
    with stages_module.Watched(tmp_path / "mine.onnx") as watched:
        assert watched.shows_inside
        assert watched.model.path == tmp_path / "mine.onnx"
        with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'mine.onnx'}")):
            watched.model.infer(np.zeros((1, 1, 1, 3), np.uint8))


def test_a_bound_is_kept_exactly(tmp_path: Path) -> None:
    measure = Measure(0.3)
    for k in range(4):
        one, none = one_object(), one_object().above(1)
        measure.add(
            str(k), np.zeros((60, 90, 3), np.uint8), Seen(one, None, None), Seen(one if k else none, None, None)
        )
    f1 = measure.agreement().f1
    assert f1 == pytest.approx(6 / 7)
    report = report_of(measure, tmp_path / "c.html")
    require(report, {"f1": f1})
    with pytest.raises(DataError, match=r"got f1 0\.8571\."):
        require(report, {"f1": np.nextafter(f1, 1)})
    almost = replace(report, boundary_f=0.96999)
    with pytest.raises(DataError, match=r"got boundary_f 0\.9699\."):
        require(almost, {"boundary_f": 0.97})
    with pytest.raises(DataError, match="boundary_f"):
        require(replace(report, boundary_f=float("nan")), {"boundary_f": 0.0})


def report_of(measure: Measure, page: Path) -> CompareReport:
    agreement = measure.agreement()
    return CompareReport(
        "a", "b", 0.3, 4, 0, False, agreement, measure.boundary_f(), 0.0, measure.f1_at(), (), (), (), (), (), (page,)
    )


def test_an_overflow_is_shown_and_the_json_stays_json(tmp_path: Path) -> None:
    """FP16 bases of infinity."""
    measure = Measure(0.3)
    bases = np.array([[[[1.0, np.inf]]]], np.float32)
    measure.add("a", np.zeros((60, 90, 3), np.uint8), *[Seen(one_object(), bases, None)] * 2)
    report = replace(report_of(measure, tmp_path / "c.html"), stages=measure.stages.differences())
    assert np.isnan(report.stages[0].largest)
    assert "nan" in "\n".join(report.lines())
    facts = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert facts["stages"][0]["relative"] is None
    assert facts["stages"][1]["relative"] == 0


def test_names_that_differ_by_case_only_are_two() -> None:
    first = Seen(one_object(), None, None)
    here = Path("a"), Path("b")
    assert renaming(("A", "a"), ("A", "a"), *here)(first).detections.classes.tolist() == [0]
    assert renaming(("A", "a"), ("a", "A"), *here)(first).detections.classes.tolist() == [1]
    with pytest.raises(DataError, match="'nut'"):
        renaming(("bolt", "nut"), ("Bolt", "BOLT"), *here)


def test_a_narrow_picture_is_shown_whole() -> None:
    html = figure(np.zeros((100_000, 2, 3), np.uint8), "narrow")
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(html.split("base64,")[1].split('"')[0]), np.uint8), 1)
    assert shown.shape[:2] == (3200, 1)


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
