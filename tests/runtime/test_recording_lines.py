"""JSON lines against their schema, polygons against pixels."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from trt_blendmask.coco import to_coco
from trt_blendmask.runtime.overlay import outlines
from trt_blendmask.runtime.recording import growing, lines
from trt_blendmask.runtime.recording.lines import MASKS, JsonLines, line_of
from trt_blendmask.runtime.recording.polygons import polygons
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import Detections, Frame

SCHEMA: dict[str, Any] = json.loads(
    (Path(lines.__file__).parents[2] / "data" / "frame.schema.json").read_text(encoding="utf-8")
)
BOXES = [[4.5, 6.25, 60, 80], [-20, -15, 40, 33], [170, 5, 190, 9], [100, 80, 180, 140]]


def blobs(sides: int = 28) -> np.ndarray:
    """Soft shapes: a disc, an ellipse, a bar, two discs; float32 [4, R, R]."""
    y, x = np.mgrid[:sides, :sides] / (sides - 1) * 2 - 1
    fields = [
        1 - np.hypot(x, y),
        0.9 - np.hypot(x, 1.6 * y),
        0.5 - np.abs(x),
        np.maximum(0.4 - np.hypot(x - 0.5, y), 0.4 - np.hypot(x + 0.5, y)),
    ]
    return np.stack([1 / (1 + np.exp(-8 * field)) for field in fields]).astype(np.float32)


def make(frame_wh: tuple[int, int] = (160, 120)) -> Detections:
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([0, 1, 1, 5], np.int32)
    return Detections(np.array(BOXES, np.float32), scores, classes, blobs(), frame_wh, ("nut", "bolt"))


def result(index: int = 0, name: str = "", detections: Detections | None = None) -> FrameResult:
    frame = Frame(np.zeros((120, 160, 3), np.uint8), index, index / 25, name, 12.5, 1.7e9, "belt.mp4")
    found = make() if detections is None else detections
    return FrameResult(frame, found, SourceState("LIVE", 0.0), {"letterbox": 1.23456, "network": 20.0, "draw": 3.0})


def validate(line: object) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(line)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", ["", "p1.png"])
def test_every_line_is_as_the_schema_says(tmp_path: Path, masks: str, name: str) -> None:
    path = tmp_path / "a.jsonl"
    nothing = make().keep(np.zeros(4, bool))
    with closing(JsonLines(path, masks)) as sink:
        sink.check()
        assert not path.exists()
        for index, found in enumerate([make(), nothing, make()]):
            sink.write(result(index, name, found))
            rows = [json.loads(row) for row in path.read_text().splitlines()]  # whole lines, at once
            assert len(rows) == index + 1
    for row in rows:
        validate(row)
        assert row["source"] == "belt.mp4"
        assert (row["wall_s"], row["monotonic_s"], row["frame_wh"]) == (1.7e9, 12.5, [160, 120])
        assert row["stage_ms"] == {"letterbox": 1.235, "network": 20.0, "draw": 3.0}
        assert row.get("file_name", "") == name
    assert [len(row["detections"]) for row in rows] == [3, 0, 3]  # the one outside the frame is left out
    assert all(("segmentation" in found) == (masks != "none") for found in rows[0]["detections"])


@pytest.mark.parametrize(
    "change",
    [
        {"frame": -1},
        {"frame": 1.5},
        {"mood": "good"},
        {"frame_wh": [160]},
        {"detections": [{"category_id": 0, "category_name": "x", "bbox": [0, 0, 1, 1], "score": 1}]},
        {"detections": [{"category_id": 1, "category_name": "x", "bbox": [0, 0, 1, 1], "score": 1.5}]},
        {"stage_ms": {"sleep": 1}},
    ],
)
def test_the_schema_refuses(change: dict[str, object]) -> None:
    line = line_of(result())
    validate(line)
    with pytest.raises(jsonschema.ValidationError):
        validate(line | change)


def test_no_key_may_be_missing() -> None:
    line = line_of(result())
    for key in line:
        with pytest.raises(jsonschema.ValidationError):
            validate({k: v for k, v in line.items() if k != key})


@pytest.mark.parametrize("paste", ["exact", "reference"])
@pytest.mark.parametrize("mask_side", [14, 56])
def test_polygons_cover_what_the_masks_cover(paste: str, mask_side: int) -> None:
    found = make()
    found = Detections(found.xyxy, found.scores, found.classes, blobs(mask_side), found.frame_wh).keep(
        np.array([True, True, False, True])
    )
    pixels = [coco_mask.decode(one["segmentation"]) for one in to_coco(found, paste)]
    rings = [polygons(outline, found.frame_wh) for outline in outlines(found, paste)]
    assert [len(one) for one in rings] == [1, 1, 2]
    for ring, full in zip(rings, pixels, strict=True):
        xy = np.concatenate([np.reshape(r, (-1, 2)) for r in ring])
        assert xy.min() >= 0
        assert (xy <= (160, 120)).all()
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(ring, 120, 160)))
        assert (drawn & full).sum() / (drawn | full).sum() > 0.97


def test_a_polygon_is_that_of_its_object_behind_one_that_is_left_out() -> None:
    assert [len(one["segmentation"]) for one in line_of(result(), "polygons")["detections"]] == [1, 1, 2]


def test_the_polygon_of_a_full_box_is_the_box() -> None:
    full = Detections(
        np.array([[20, 30, 60, 50]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int32),
        np.ones((1, 14, 14), np.float32),
        (160, 120),
    )
    (ring,) = polygons(outlines(full)[0], full.frame_wh)
    xy = np.reshape(ring, (-1, 2))
    np.testing.assert_allclose([*xy.min(axis=0), *xy.max(axis=0)], [20, 30, 60, 50], atol=1.5)


def test_holes_are_filled_and_are_no_objects() -> None:
    y, x = np.mgrid[:28, :28] - 13.5
    ring = (np.abs(np.hypot(x, y) - 9) < 3).astype(np.float32)
    found = Detections(
        np.array([[10, 10, 94, 94]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32), ring[None], (160, 120)
    )
    assert len(polygons(outlines(found)[0], found.frame_wh)) == 1


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write_all, room = tmp_path / "a.jsonl", growing.write_all, 5000

    def limited(descriptor: int, data: bytes) -> None:
        left = room - path.stat().st_size
        write_all(descriptor, data[:left])
        if left < len(data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(growing, "write_all", limited)
    with closing(JsonLines(path)) as sink, pytest.raises(OSError, match="No space left"):
        for index in range(100):
            sink.write(result(index))
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(len(rows)))
    assert path.read_text().endswith("\n")
    assert path.stat().st_size > room - 2000


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with closing(JsonLines(tmp_path / "a.jsonl")) as sink:
        sink.write(result(name="ü\udc80.png"))
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["file_name"] == "ü\udc80.png"
