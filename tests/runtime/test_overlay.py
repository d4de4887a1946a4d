"""The overlay: it covers the mask and nothing else, colours are stable, labels stay in the frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from trt_blendmask.paste import paste_full
from trt_blendmask.runtime.overlay import PALETTE, colour_of, contours, draw, outlines
from trt_blendmask.structures import Detections


def blob(side: int = 28, hole: bool = False) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + 0.5
    radius = np.hypot(x / side - 0.5, y / side - 0.5)
    depth = 0.42 - radius if not hole else np.minimum(0.42 - radius, radius - 0.2)
    return (1 / (1 + np.exp(-40 * depth))).astype(np.float32)


def make(boxes: list[list[float]], frame_wh: tuple[int, int], mask: np.ndarray | None = None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.99, 0.5, n, dtype=np.float32),
        (np.arange(n) % 3).astype(np.int32),
        np.stack([blob() if mask is None else mask] * n) if n else np.zeros((0, 28, 28), np.float32),
        frame_wh,
        ("hex nut", "washer", "bolt"),
    )


BOXES = [[20.3, 30.7, 220.9, 180.2], [-60, -40, 90, 80], [250, 150, 400, 300], [100, 100, 112, 112]]


@pytest.mark.parametrize("paste", ["exact", "reference"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("hole", [False, True])
def test_fill_and_outline_follow_the_pasted_mask(box: list[float], paste: str, hole: bool) -> None:
    found = make([box], (320, 240), blob(hole=hole))
    image = np.zeros((240, 320, 3), np.uint8)
    draw(image, found, outlines(found, paste), labels=False)
    touched = image.max(axis=2) > 40
    mask = paste_full(found, paste)[0].astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    assert not (touched & (cv2.dilate(mask, kernel) == 0)).any()
    assert touched[cv2.erode(mask, kernel) > 0].all()
    shifted = np.roll(mask, 6, axis=1)
    assert (touched & (cv2.dilate(shifted, kernel) == 0)).any()  # the comparison has teeth


def test_contours_are_within_a_fraction_of_a_pixel() -> None:
    box = np.array([10.0, 20.0, 210.0, 220.0], np.float32)
    (outline,) = contours(blob(56), box)
    radius = np.hypot(*(outline - (110.0, 120.0)).T)
    assert abs(float(radius.mean()) - 84.0) < 0.3
    assert float(radius.std()) < 0.4
    assert len(contours(blob(56, hole=True), box)) == 2
    assert contours(np.zeros((56, 56), np.float32), box) == []


@pytest.mark.parametrize("frame_wh", [(1, 1), (7, 5), (64, 48), (320, 240), (1920, 1080)])
def test_any_size_of_frame_and_any_box(frame_wh: tuple[int, int]) -> None:
    width, height = frame_wh
    boxes = [
        [0, 0, width, height],
        [-1e6, -1e6, 1e6, 1e6],
        [width - 1, height - 1, width + 50, height + 50],
        [width / 2, height / 2, width / 2 + 0.2, height / 2 + 0.2],
        [-50, -50, -10, -10],
        [5, 5, 5, 5],
    ]
    for mask in (blob(), np.ones((28, 28), np.float32), np.zeros((28, 28), np.float32)):
        image = np.full((height, width, 3), 128, np.uint8)
        draw(image, make(boxes, frame_wh, mask))
        assert image.shape == (height, width, 3)


def test_nothing_found_changes_nothing() -> None:
    image = np.full((60, 80, 3), 9, np.uint8)
    draw(image, make([], (80, 60)))
    assert (image == 9).all()


def test_colours_are_stable_and_distinct() -> None:
    colours = [colour_of(i) for i in range(80)]
    assert colours == [colour_of(i) for i in range(80)]
    assert len(set(colours)) == 80
    palette = np.array(PALETTE, float)
    apart = np.abs(palette[:, None] - palette[None]).sum(axis=2) + np.eye(len(palette)) * 999
    assert apart.min() > 60


def test_colour_by_instance() -> None:
    found = make([[10, 10, 60, 60], [100, 10, 150, 60]], (160, 80))
    found = Detections(found.xyxy, found.scores, np.zeros(2, np.int32), found.masks, found.frame_wh)
    by_class, by_instance = np.zeros((80, 160, 3), np.uint8), np.zeros((80, 160, 3), np.uint8)
    draw(by_class, found, labels=False)
    draw(by_instance, found, colour_by="instance", labels=False)
    assert (by_class[35, 35] == by_class[35, 125]).all()
    assert (by_instance[35, 35] != by_instance[35, 125]).any()


def test_labels_do_not_hide_each_other_much() -> None:
    from trt_blendmask.runtime.labels import LabelLayer

    image = np.zeros((240, 320, 3), np.uint8)
    layer = LabelLayer(image)
    for _ in range(12):
        layer.add("hex nut 0.99", np.array([150, 100, 170, 120], np.float32), (0, 200, 255))
    placed = layer._placed
    assert 2 <= len(placed) <= 8
    for i, (x, y, w, h) in enumerate(placed):
        assert min(x, y) >= 0
        assert max(x + w - 320, y + h - 240) <= 0
        for x2, y2, w2, h2 in placed[:i]:
            shared = max(0, min(x + w, x2 + w2) - max(x, x2)) * max(0, min(y + h, y2 + h2) - max(y, y2))
            assert shared <= 0.25 * w2 * h2
    assert image.max() > 150
