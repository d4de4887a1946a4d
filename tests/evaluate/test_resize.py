"""AdelaiDet's resize rule, against Pillow and detectron2's own sizes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.evaluate.conftest import command
from tests.quick_model import quick_model
from trt_blendmask.evaluate import evaluate
from trt_blendmask.evaluate.resize import ShortestEdge, resize_averaging


@pytest.mark.parametrize("wh", [(37, 20), (200, 90), (60, 121), (90, 60)])
def test_resizing_equals_pillow(wh: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(wh, Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(resize_averaging(image, wh).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1  # halves, which Pillow rounds in fixed point
    plain = cv2.resize(image, wh, interpolation=cv2.INTER_LINEAR).astype(int)
    if wh[0] < 90 and wh[1] < 60:
        assert np.abs(plain - expected).max() > 20  # what a bound of 1 rules out


def test_the_rule_of_adelaidet(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = ShortestEdge()
    assert rule.scaled_wh((640, 480)) == (1067, 800)
    assert rule.scaled_wh((480, 640)) == (800, 1067)
    assert rule.scaled_wh((1920, 1080)) == (1333, 750)
    assert rule.scaled_wh((500, 375)) == (1067, 800)
    # What is a half to us is a little less to detectron2, which scales twice, or a little more.
    assert rule.scaled_wh((22, 11)) == (1333, 666)
    assert ShortestEdge(600, 1000).scaled_wh((1920, 1080)) == (1000, 562)
    assert ShortestEdge(550, 916).scaled_wh((88, 11)) == (916, 115)
    assert command(scenes, tmp_path / "large", "--resize", "800,1333") == 2
    assert "--input-size 768x1344" in capsys.readouterr().err
    fits = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "a", 2, ShortestEdge(288, 576))
    boxed = evaluate([quick_model()], scenes / "annotations.json", scenes, tmp_path / "b", 2)
    assert fits.models[0].box.overall["AP50"] == pytest.approx(boxed.models[0].box.overall["AP50"], abs=0.1)
    assert fits.models[0].box.overall["AP50"] > 0.6
