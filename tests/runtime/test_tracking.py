"""Track numbers: kept through the run's outputs, and given by the real tracker where it is installed."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trt_blendmask.errors import UsageError
from trt_blendmask.runtime import job, pipeline
from trt_blendmask.runtime.options import RunOptions
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.runtime.pipeline import run
from trt_blendmask.runtime.tracking import Tracking
from trt_blendmask.structures import Detections

Maker = Callable[..., Path]


def two(x: float, swapped: bool) -> Detections:
    """Two objects that move to the right, in either order."""
    xyxy = np.array([[x, 10, x + 40, 50], [x + 10, 100, x + 60, 160]], np.float32)
    order = [1, 0] if swapped else [0, 1]
    return Detections(
        xyxy[order],
        np.array([0.9, 0.8], np.float32),
        np.zeros(2, np.int32),
        np.full((2, 4, 4), 0.9, np.float32),
        (320, 200),
    )


def test_an_object_keeps_its_number_whatever_its_rank() -> None:
    pytest.importorskip("trackers", reason="the extra 'track' is not installed")
    tracking = Tracking(25.0)
    ids = [tracking.ids(two(10 + 3 * i, bool(i % 2)), i / 25) for i in range(12)]
    seen = [one if i % 2 == 0 else one[::-1] for i, one in enumerate(ids)]
    assert (seen[0] == -1).all()
    assert len({tuple(one) for one in seen[2:]}) == 1
    assert len(set(seen[-1].tolist())) == 2
    assert seen[-1].min() >= 0
    assert tracking.ids(two(0, False).top(0), 1.0).shape == (0,)


def test_numbers_go_on_behind_a_picture_of_another_size() -> None:
    pytest.importorskip("trackers", reason="the extra 'track' is not installed")
    tracking = Tracking(25.0)
    before = [tracking.ids(two(10, False), i / 25) for i in range(4)][-1]
    other = [tracking.ids(replace(two(10, False), frame_wh=(640, 400)), i / 25) for i in range(4, 8)]
    assert (other[0] == -1).all()  # where they were says nothing about where they are
    assert other[-1].min() > before.max()  # and no number is given twice
    later = [tracking.ids(replace(two(10, False), frame_wh=(640, 400)), 9 + i / 25) for i in range(4)]  # a pause
    assert later[-1].min() > other[-1].max()


def test_the_numbers_reach_the_lines(stub_model: Maker, clip: Maker, tmp_path: Path, monkeypatch: Any) -> None:
    class Rank:
        """A double for the tracker: by rank, nothing for the last."""

        def __init__(self, _fps: float) -> None: ...

        def ids(self, found: Detections, _time_s: float) -> np.ndarray:
            return np.array([7, 8, -1], np.int32)[: len(found)]

    monkeypatch.setattr(job, "Tracking", Rank)
    monkeypatch.setattr(pipeline, "check_tracking", lambda: None)
    lines = tmp_path / "a.jsonl"
    run(stub_model(), clip(frames=2), json=lines, options=RunOptions(track=True))
    found = [json.loads(line)["detections"] for line in lines.read_text().splitlines()]
    assert [[one.get("track_id") for one in row] for row in found] == [[7, 8, None]] * 2


def test_colours_go_with_the_number() -> None:
    def drawn(ids: list[int]) -> np.ndarray:
        image = np.zeros((200, 320, 3), np.uint8)
        found = two(10, False)
        draw(
            image,
            Detections(*found_parts(found), track_ids=np.array(ids, np.int32)),
            colour_by="instance",
            labels=False,
        )
        return image

    assert (drawn([3, 4]) != drawn([4, 3])).any()
    assert (drawn([3, 4])[30, 30] == drawn([3, 9])[30, 30]).all()


def found_parts(found: Detections) -> tuple[Any, ...]:
    return found.xyxy, found.scores, found.classes, found.masks, found.frame_wh


def test_the_rate_is_the_cameras_own(stub_model: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Noting:
        def __init__(self, fps: float) -> None:
            rates.append(fps)

        def ids(self, found: Detections, _time_s: float) -> np.ndarray:
            return np.zeros(len(found), np.int32)

    monkeypatch.setattr(job, "Tracking", Noting)
    monkeypatch.setattr(pipeline, "check_tracking", lambda: None)
    camera = "synthetic:conveyor?live=1&fps=50&size=128x72"
    run(stub_model(), camera, max_frames=3, options=RunOptions(track=True))
    assert rates == [50.0]


def test_without_the_package_nothing_is_begun(
    stub_model: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = builtins.__import__

    def importing(name: str, *args: Any, **options: Any) -> Any:
        if name == "trackers":
            raise ImportError(name)
        return known(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", importing)
    monkeypatch.setattr(pipeline, "load_teams", lambda *_: 1 / 0)
    with pytest.raises(UsageError, match=r"^Expected the package trackers for --track"):
        run(stub_model(), "synthetic:conveyor", json=tmp_path / "a.jsonl", options=RunOptions(track=True))
