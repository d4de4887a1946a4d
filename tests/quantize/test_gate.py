"""The gate: what it compares, what it lets through, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trt_blendmask.bundled import bundled_model
from trt_blendmask.calibrate.pictures import Picture
from trt_blendmask.errors import DataError
from trt_blendmask.quantize.gate import compare_models, held_out, judge, require, worst_beside
from trt_blendmask.structures import Detections
from trt_blendmask.synthetic import render_scene


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [Picture(i, f"scene {i}", str(i), render_scene(4711, i).image) for i in range(2)]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with coarse weights in its pyramid."""
    model = onnx.load(bundled_model())
    for tensor in model.graph.initializer:
        if tensor.name.startswith("fpn.") and tensor.name.endswith(".weight"):
            weight = numpy_helper.to_array(tensor)
            step = np.abs(weight).max() / 3
            tensor.CopyFrom(numpy_helper.from_array((np.rint(weight / step) * step).astype(np.float32), tensor.name))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    onnx.save(model, path)
    return path


def test_the_same_model_passes(pictures: list[Picture], tmp_path: Path) -> None:
    verdict = judge(bundled_model(), bundled_model(), pictures, tmp_path / "m.int8.onnx")
    assert verdict.passed
    require(verdict, tmp_path / "m.int8.onnx")
    assert (verdict.agreement.f1, verdict.agreement.mask_iou) == (1, 1)
    assert verdict.pictures == 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_is_refused_and_the_worst_picture_kept(
    damaged: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    output = tmp_path / "m.int8.onnx"
    verdict = judge(bundled_model(), damaged, pictures, output)
    assert not verdict.passed
    assert verdict.side_by_side == worst_beside(output)
    assert "scene" in verdict.sentence()
    by_size = r"\(small 0\.\d+, medium 0\.\d+ objects\)"
    with pytest.raises(
        DataError, match=rf"F1 >= 0.97 and mask IoU >= 0.97 .* got F1 0\.\d+ .*{by_size}.*--force"
    ) as refusal:
        require(verdict, output)
    assert str(worst_beside(output)) in str(refusal.value)
    assert list(tmp_path.iterdir()) == [worst_beside(output)]
    image = pictures[0].image
    assert image is not None
    picture = cv2.imread(str(worst_beside(output)))
    assert picture.shape[1] == 2 * image.shape[1] + 4
    assert picture.shape[0] > image.shape[0]
    left, right = picture[:, : image.shape[1]], picture[:, -image.shape[1] :]
    assert (left != right).any(axis=2).mean() > 0.005  # the overlays differ, the picture below does not
    assert (left == right).all(axis=2).mean() > 0.4


def test_pictures_in_which_nothing_is_found_prove_nothing(tmp_path: Path) -> None:
    blank = [Picture(0, "blank", "", np.zeros((288, 512, 3), np.uint8))]
    with pytest.raises(DataError, match="the float model finds something"):
        require(judge(bundled_model(), bundled_model(), blank, tmp_path / "m.onnx"), tmp_path / "m.onnx")


class _Stub:
    """Finds what it is told to, by the picture's first pixel."""

    def __init__(self, shift: dict[int, float]) -> None:
        self.shift = shift

    def __call__(self, image: np.ndarray) -> Detections:
        x = self.shift.get(int(image[0, 0, 0]), 0.0)
        box = np.array([[x, 0, x + 20, 20]], np.float32)
        masks = np.ones((1, 14, 14), np.float32)
        return Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), masks, (40, 40))


def test_the_picture_with_the_least_agreement_is_the_worst() -> None:
    taken = [Picture(i, f"{i}", "", np.full((40, 40, 3), i, np.uint8)) for i in range(4)]
    ticks: list[int] = []
    reference, other = _Stub({}), _Stub({1: 2.0, 2: 6.0, 3: 1.0})
    compared = compare_models(reference, other, iter(taken), lambda: ticks.append(1))  # type: ignore[arg-type]
    assert (compared.worst.name, compared.pictures, len(ticks)) == ("2", 4, 4)
    assert compared.agreement.worst_index == 2
    assert compared.agreement.box_iou == pytest.approx(np.mean([1, 18 / 22, 14 / 26, 19 / 21]))
    with pytest.raises(DataError, match="got none"):
        compare_models(reference, other, iter([]))  # type: ignore[arg-type]


def test_held_out_are_spread_unseen_and_readable(tmp_path: Path) -> None:
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8, 3), 20 * i, np.uint8))
    (tmp_path / "4.png").write_bytes(b"no picture")
    every_third = list(held_out(str(tmp_path), 4))
    assert [Path(p.name).stem for p in every_third] == ["0", "3", "6", "9"]
    rest = list(held_out(str(tmp_path), 12, {every_third[1].sha256}))
    assert [Path(p.name).stem for p in rest] == ["0", "1", "2", "5", "6", "7", "8", "9", "10", "11"]
    everything = {p.sha256 for p in held_out(str(tmp_path), 12)}
    with pytest.raises(DataError, match="11 were calibrated on and 1 cannot be read"):
        list(held_out(str(tmp_path), 12, everything))
