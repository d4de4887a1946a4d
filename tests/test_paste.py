"""Pasting against what AdelaiDet's own code pasted, and against a plain loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trt_blendmask.errors import UsageError
from trt_blendmask.paste import paste, paste_full
from trt_blendmask.structures import Detections


def detections(boxes: np.ndarray, masks: np.ndarray, frame_wh: tuple[int, int]) -> Detections:
    n = len(boxes)
    return Detections(
        np.asarray(boxes, np.float32).reshape(n, 4),
        np.linspace(1, 0.5, n, dtype=np.float32),
        np.zeros(n, np.int32),
        np.asarray(masks, np.float32),
        frame_wh,
    )


def unpack(packed: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    return np.unpackbits(packed, axis=1)[:, : hw[0] * hw[1]].reshape(-1, *hw).astype(bool)


def sampled(mask: np.ndarray, box: np.ndarray, x: int, y: int) -> float:
    """Bilinear value of one pixel's centre, zeros outside: the definition, in float64."""
    x1, y1, x2, y2 = map(float, box)
    side = mask.shape[0]
    u, v = (x + 0.5 - x1) / (x2 - x1) * side - 0.5, (y + 0.5 - y1) / (y2 - y1) * side - 0.5
    total = 0.0
    for row in (int(np.floor(v)), int(np.floor(v)) + 1):
        for column in (int(np.floor(u)), int(np.floor(u)) + 1):
            if 0 <= row < side and 0 <= column < side:
                total += (1 - abs(v - row)) * (1 - abs(u - column)) * float(mask[row, column])
    return total


def test_the_reference_cases(reference: Path) -> None:
    data = np.load(reference / "paste" / "paste_R28.npz")
    height, width = data["soft"].shape[1:]
    ours = paste_full(detections(data["boxes"], data["masks"], (width, height)))
    decided = np.abs(data["soft"] - 0.5) >= 1e-3
    np.testing.assert_array_equal(ours[decided], data["binary"][decided])


END_TO_END = [(model, k) for model in ("550_r50", "rt_r50", "dla34_small") for k in range(3)]


def end_to_end(reference: Path, model: str, k: int) -> tuple[Detections, np.ndarray, np.ndarray, list[int]]:
    """Detections before post-processing, AdelaiDet's masks after it, pixels that rounding decides, what it kept."""
    folder = reference / "end_to_end" / model
    data = np.load(folder / f"img{k}.npz")
    height, width = map(int, data["final_hw"])
    network_h, network_w = json.loads((folder / f"img{k}.json").read_text())["network_hw"]
    to_frame = np.array([width / network_w, height / network_h] * 2, np.float32)
    found = detections(data["raw_boxes"] * to_frame, data["raw_masks"][:, 0], (width, height))
    masks = unpack(data["final_masks_packed"], (height, width))
    near = unpack(data["near_half_packed"], (height, width))
    return found, masks, near, data["kept_after_postprocess"].tolist()


@pytest.mark.parametrize(("model", "k"), END_TO_END)
def test_reference_mode_is_adelaidets(reference: Path, model: str, k: int) -> None:
    found, masks, near, kept = end_to_end(reference, model, k)
    assert [i for i, patch in enumerate(paste(found, "reference")) if patch is not None] == kept
    ours = paste_full(found, "reference")[kept]
    np.testing.assert_array_equal(ours[~near], masks[~near])


@pytest.mark.parametrize("mutation", ["half a pixel", "swapped axes", "strict bound", "exact mode"])
def test_the_comparison_has_teeth(reference: Path, mutation: str) -> None:
    found, masks, near, kept = end_to_end(reference, "550_r50", 1)
    boxes, cells, mode = found.xyxy, found.masks, "reference"
    if mutation == "half a pixel":
        boxes = boxes + np.float32(0.5)
    elif mutation == "swapped axes":
        cells = cells.transpose(0, 2, 1)
    elif mutation == "strict bound":
        cells, near = cells - np.float32(2e-3), near & False
    else:
        mode = "exact"
    ours = paste_full(detections(boxes, cells, found.frame_wh), mode)[kept]
    assert (ours[~near] != masks[~near]).sum() > 10


def test_exact_mode_against_the_definition() -> None:
    rng, painted = np.random.default_rng(3), 0
    for box in ([-7.3, -4.2, 12.6, 9.9], [30.2, 18.7, 47.9, 40.4], [5.5, 5.5, 9.25, 6.5], [-50, -40, 90, 80]):
        mask = rng.random((1, 14, 14)).astype(np.float32)
        ours = paste_full(detections(np.array([box]), mask, (41, 29)))[0]
        values = np.array([[sampled(mask[0], np.float32(box), x, y) for x in range(41)] for y in range(29)])
        inside = np.abs(values - 0.5) > 1e-5
        np.testing.assert_array_equal(ours[inside], (values >= 0.5)[inside])
        painted += int(ours.sum())
    assert painted > 400


def test_the_modes_agree_inside_the_frame_and_differ_over_its_border() -> None:
    rng = np.random.default_rng(4)
    inside = detections(np.array([[3.2, 4.4, 30.1, 22.8]]), rng.random((1, 28, 28)), (40, 30))
    np.testing.assert_array_equal(paste_full(inside, "exact"), paste_full(inside, "reference"))
    cut = np.zeros((1, 28, 28))
    cut[0, :, 14:] = 1  # the right half of the box is the object; its left half lies outside
    over = detections(np.array([[-20, 0, 20, 30]]), cut, (40, 30))
    assert paste_full(over, "exact")[0, 2:28, 1:19].all()
    assert not paste_full(over, "reference")[0, :, :9].any()


def test_the_bound_is_inclusive() -> None:
    found = detections(np.array([[0, 0, 8, 8]]), np.full((1, 8, 8), 0.5), (8, 8))
    assert paste_full(found)[0, 1:7, 1:7].all()


@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_boxes_without_area_in_the_frame_are_dropped(mode: str) -> None:
    boxes = [
        [5, 5, 5, 9],  # no width
        [9, 9, 4, 4],  # inverted
        [-9, 2, -1, 8],  # left of the frame
        [40, 2, 50, 8],  # begins at its right edge
        [np.nan, 1, 5, 5],
        [1, 1, np.inf, 9],
        [5.6, 5.6, 5.9, 5.9],  # between two pixel centres: kept, but empty
        [-1e9, -1e9, 1e9, 1e9],
    ]
    found = detections(np.array(boxes), np.ones((len(boxes), 8, 8)), (40, 30))
    patches = paste(found, mode)
    assert [p is None for p in patches] == [True] * 6 + [False] * 2
    assert paste_full(found, mode).sum(axis=(1, 2)).tolist() == [0] * 7 + [1200 if mode == "exact" else 1200 - 4]


def test_nothing_and_a_wrong_mode() -> None:
    nothing = detections(np.zeros((0, 4)), np.zeros((0, 8, 8)), (40, 30))
    assert paste(nothing) == []
    assert paste_full(nothing).shape == (0, 30, 40)
    with pytest.raises(UsageError, match="exact or reference, got 'fast'"):
        paste(nothing, "fast")


def test_no_patch_is_larger_than_its_box_in_the_frame() -> None:
    found = detections(np.array([[10.2, 5.5, 20.9, 15.1], [-30, -30, 3, 3]]), np.ones((2, 8, 8)), (400, 300))
    shapes = [p.mask.shape for p in paste(found) if p is not None]
    assert shapes == [(10, 11), (3, 3)]
