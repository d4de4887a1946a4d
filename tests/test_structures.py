"""The invariants that the data types promise."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_blendmask.errors import DataError
from trt_blendmask.structures import Detections, Frame, Letterbox, ModelSpec

SPEC = ModelSpec(
    kind="raw-head", class_names=("a", "b"), input_hw=(64, 96), strides=(8, 16, 32), num_bases=4, attention_size=7
)


def detections(n: int, R: int = 4) -> Detections:
    return Detections(
        xyxy=np.tile(np.array([1, 2, 11, 22], np.float32), (n, 1)),
        scores=np.linspace(0.9, 0.1, n, dtype=np.float32),
        classes=np.arange(n, dtype=np.int32) % 2,
        masks=np.full((n, R, R), 0.5, np.float32),
        frame_wh=(96, 64),
        class_names=("a", "b"),
    )


def test_spec_survives_its_json() -> None:
    spec = dataclasses.replace(SPEC, score_threshold=0.1, pixel_mean=(1.5, 2.5, 3.5), tail="native")
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"kind": "engine"}, "kind"),
        ({"num_bases": 0}, "num_bases"),
        ({"score_threshold": 1.0}, "score_threshold"),
        ({"pixel_std": [1.0, 0.0, 1.0]}, "pixel_std"),
        ({"attention_interpolation": "bicubic"}, "attention_interpolation"),
        ({"class_names": []}, "class_names"),
        ({"class_names": [0, 1]}, "class_names"),
        ({"class_names": "bolt"}, "class_names"),
        ({"from_the_future": 1}, "from_the_future"),
    ],
)
def test_spec_refuses_what_it_cannot_mean(change: dict[str, object], names: str) -> None:
    text = json.dumps({**json.loads(SPEC.to_json()), **change})
    with pytest.raises(DataError, match=names):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "raw-head"}'])
def test_spec_refuses_what_is_not_its_json(text: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        ModelSpec.from_json(text)


sizes = st.integers(1, 4000)


@given(frame_wh=st.tuples(sizes, sizes), input_hw=st.tuples(sizes, sizes))
def test_letterbox_fits_touches_and_returns(frame_wh: tuple[int, int], input_hw: tuple[int, int]) -> None:
    box = Letterbox(frame_wh, input_hw)
    (scaled_w, scaled_h), (input_h, input_w) = box.scaled_wh, input_hw
    assert 1 <= scaled_w <= input_w
    assert 1 <= scaled_h <= input_h
    assert scaled_w == input_w or scaled_h == input_h
    whole = np.array([[0, 0, *frame_wh]], np.float32)
    np.testing.assert_allclose(box.to_input(whole), [[0, 0, scaled_w, scaled_h]], rtol=1e-6)
    xyxy = np.array([[-3.5, 1, 7.25, 9], [0, 0, 1, 1]], np.float32)
    np.testing.assert_allclose(box.to_frame(box.to_input(xyxy)), xyxy, rtol=1e-5)


def test_letterbox_keeps_x_and_y_apart() -> None:
    box = Letterbox((1920, 1080), (576, 576))
    assert box.scaled_wh == (576, 324)
    np.testing.assert_allclose(box.to_input(np.array([[100, 200, 300, 400]], np.float32)), [[30, 60, 90, 120]])


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_a_frame_is_a_bgr_picture(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"uint8 \[H, W, 3\] BGR"):
        Frame(image)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_detections_are_cut_together(n: int) -> None:
    found = detections(n)
    assert len(found) == n
    kept = found.above(0.5)
    assert len(kept) == len(kept.xyxy) == len(kept.classes) == len(kept.masks) == int((found.scores >= 0.5).sum())
    assert kept.class_names == found.class_names


@pytest.mark.parametrize("name", ["xyxy", "classes", "masks"])
def test_detections_refuse_unequal_counts(name: str) -> None:
    found = detections(3)
    with pytest.raises(DataError, match=name):
        dataclasses.replace(found, **{name: getattr(found, name)[:2]})


@pytest.mark.parametrize("ids", [np.zeros(2, np.int32), np.zeros((3, 1), np.int32), np.zeros(3, np.int64)])
def test_detections_refuse_other_track_ids(ids: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"track_ids must be int32 \[3\]"):
        dataclasses.replace(detections(3), track_ids=ids)


def test_a_spec_that_is_refused_names_its_file() -> None:
    with pytest.raises(DataError, match=r"in 'my\.onnx', but it has the unknown keys \['later'\].*pip install"):
        ModelSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), "later": 1}), "my.onnx")
