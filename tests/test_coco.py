"""COCO results against pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from trt_blendmask.coco import compress_counts, decompress_counts, encode_rle, run_lengths, to_coco
from trt_blendmask.paste import Patch, paste_full
from trt_blendmask.structures import Detections


def expected(patch: Patch, frame_wh: tuple[int, int]) -> dict[str, object]:
    full = np.zeros(frame_wh[::-1], np.uint8, order="F")
    rows, columns = patch.mask.shape
    full[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.mask
    rle = coco_mask.encode(full)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_rle_equals_pycocotools(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    columns, rows = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    x, y = data.draw(st.integers(0, width - columns)), data.draw(st.integers(0, height - rows))
    share = data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    patch = Patch(x, y, rng.random((rows, columns)) < share)
    assert encode_rle(patch, (width, height)) == expected(patch, (width, height))


@pytest.mark.parametrize("frame_wh", [(1920, 1080), (8192, 6000), (1, 1)])
@pytest.mark.parametrize("kind", ["full", "empty", "first pixel", "last pixel", "blob"])
def test_rle_of_large_frames(frame_wh: tuple[int, int], kind: str) -> None:
    width, height = frame_wh
    patches = {
        "full": Patch(0, 0, np.ones((height, width), bool)),
        "empty": Patch(0, 0, np.zeros((0, 0), bool)),
        "first pixel": Patch(0, 0, np.ones((1, 1), bool)),
        "last pixel": Patch(width - 1, height - 1, np.ones((1, 1), bool)),
        "blob": Patch(width // 2, height // 3, np.hypot(*np.mgrid[: height // 3, : width // 3] - 50) < 300),
    }
    assert encode_rle(patches[kind], frame_wh) == expected(patches[kind], frame_wh)


def make(frame_wh: tuple[int, int] = (64, 48)) -> Detections:
    rng = np.random.default_rng(0)
    return Detections(
        np.array([[4.5, 6.25, 30, 40], [-10, -8, 20, 12], [70, 5, 80, 9], [50, 40, 90, 90]], np.float32),
        np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        np.array([0, 1, 1, 5], np.int32),
        rng.random((4, 14, 14), dtype=np.float32),
        frame_wh,
        ("nut", "bolt"),
    )


@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_results(mode: str) -> None:
    found = make()
    results = to_coco(found, mode)
    assert results == found.to_coco(mode)
    json.dumps(results)
    assert [r["category_id"] for r in results] == [1, 2, 6]  # the third box lies outside the frame
    assert [r["category_name"] for r in results] == ["nut", "bolt", "class 5"]
    assert [r["bbox"] for r in results] == [[4.5, 6.25, 25.5, 33.75], [0, 0, 20, 12], [50, 40, 14, 8]]
    np.testing.assert_allclose([r["score"] for r in results], [0.9, 0.8, 0.6], atol=1e-6)
    dense = paste_full(found, mode)[[0, 1, 3]]
    for result, mask in zip(results, dense, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]).astype(bool), mask)


def test_supervision() -> None:
    pytest.importorskip("supervision")
    found = make()
    theirs = found.to_supervision()
    np.testing.assert_array_equal(theirs.mask, paste_full(found))
    np.testing.assert_array_equal(theirs.xyxy, found.xyxy)
    assert theirs.class_id.tolist() == [0, 1, 1, 5]
    assert theirs["class_name"].tolist() == ["nut", "bolt", "bolt", "class 5"]


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_come_back(seed: int) -> None:
    mask = np.random.default_rng(seed).random((37, 53)) < (0.5, 0.02, 0.98, 0.0)[seed]
    runs = run_lengths(Patch(0, 0, mask), (53, 37))
    assert decompress_counts(compress_counts(runs)) == runs.tolist()
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert sum(decompress_counts(counts)) == 37 * 53


@pytest.mark.parametrize("text", ["o", "\x01", "~~~~", "é"])
def test_other_texts_are_no_run_lengths(text: str) -> None:
    with pytest.raises(ValueError):
        decompress_counts(text)
