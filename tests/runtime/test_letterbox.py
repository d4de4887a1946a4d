"""The letterbox: the map there and back, what the buffer holds, and how near its resizing is to AdelaiDet's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_blendmask.runtime.letterbox import Letterboxer, resize
from trt_blendmask.structures import Letterbox, ModelSpec

SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def spec(input_hw: tuple[int, int] = (64, 96), dtype: str = "uint8") -> ModelSpec:
    return ModelSpec("deployable", ("nut",), input_hw, (8,), 4, 7, input_dtype=dtype, pixel_std=(1.0, 2.0, 4.0))


@settings(deadline=None)
@given(SIZES, SIZES, st.lists(st.floats(-500, 4500, width=32), min_size=4, max_size=4))
def test_there_and_back(frame_wh: tuple[int, int], input_hw: tuple[int, int], box: list[float]) -> None:
    letterbox = Letterbox(frame_wh, input_hw)
    xyxy = np.array([box], np.float32)
    np.testing.assert_allclose(letterbox.to_frame(letterbox.to_input(xyxy)), xyxy, rtol=1e-6, atol=1e-4)
    width, height = letterbox.scaled_wh
    whole = letterbox.to_frame(np.array([[0, 0, width, height]], np.float32))
    np.testing.assert_allclose(whole[0], [0, 0, *frame_wh], rtol=1e-6)


def test_uint8_is_anchored_top_left_and_padded_with_the_mean_colour() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (40, 96, 3), dtype=np.uint8)
    images, box = Letterboxer(spec())(frame)
    assert (images.dtype, images.shape) == (np.uint8, (1, 64, 96, 3))
    np.testing.assert_array_equal(images[0, :40], frame)  # fits already: no resampling
    assert (images[0, 40:] == (104, 116, 124)).all()
    assert box.scaled_wh == (96, 40)


def test_float32_is_normalised_planar_and_exactly_zero_in_the_padding() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (64, 50, 3), dtype=np.uint8)
    images, _ = Letterboxer(spec(dtype="float32"))(frame)
    assert (images.dtype, images.shape) == (np.float32, (1, 3, 64, 96))
    normalised = (frame.astype(np.float64) - (103.53, 116.28, 123.675)) / (1, 2, 4)
    np.testing.assert_allclose(images[0, :, :, :50], normalised.transpose(2, 0, 1), atol=1e-4)
    assert (images[0, :, :, 50:] == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_one_buffer_that_forgets_the_last_frame(dtype: str) -> None:
    letterboxer = Letterboxer(spec(dtype=dtype))
    wide, tall = np.full((30, 200, 3), 255, np.uint8), np.full((300, 30, 3), 7, np.uint8)
    first, _ = letterboxer(wide)
    first_values = first.copy()
    second, _ = letterboxer(tall)
    assert np.shares_memory(first, second)
    np.testing.assert_array_equal(second, Letterboxer(spec(dtype=dtype))(tall)[0])
    np.testing.assert_array_equal(letterboxer(wide)[0], first_values)


def test_resizing_is_near_adelaidets(reference: Path) -> None:
    data = np.load(reference / "resize" / "resize_cases.npz")
    bounds = {0: 0.3, 1: 1.6, 2: 0.3, 3: 0.9}  # mean grey levels; enlarged: 0 and 2, shrunk: 1 and 3
    for case, bound in bounds.items():
        theirs = data[f"resized{case}"]
        ours = resize(data[f"orig{case}"], (theirs.shape[1], theirs.shape[0])).astype(int)
        assert np.abs(ours - theirs).mean() < bound
        shifted = np.roll(ours, 1, axis=1)
        assert np.abs(shifted - theirs).mean() > 4 * bound
