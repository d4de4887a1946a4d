"""Asserts what the table prints, and that the comparisons would notice mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import reference_folder
from tests.parity import networks, steps
from tests.parity.measure import BOUNDS, Row, compare, relative
from tests.parity.table import Check, checks

CHECKS = dict(checks(reference_folder()))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_within_bounds(check: Check, tmp_path: Path) -> None:
    row = check(tmp_path)
    assert row.errors
    assert not row.failed, row.errors


def test_all_kinds_of_cases_are_found() -> None:
    for words in ("bundled", "550_r50 plain", "CLI", "_legacy", "_e2e_", "tail_only", "blend", "select", "paste"):
        assert any(words in name for name in CHECKS), words


@pytest.mark.parametrize("opset", [18, 20])
def test_newer_opsets(reference: Path, opset: int) -> None:
    assert not steps.selection(reference / "detections" / "b10_c3_batch2.npz", "matrix", opset).failed
    assert not steps.blending(reference / "blender" / "a08_batch2.npz", opset).failed


def found() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    low = rng.uniform(-20, 100, (30, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (30, 2))], axis=1).astype(np.float32)
    scores = np.sort(rng.uniform(0.2, 1, 30).astype(np.float32))[::-1]
    return {"boxes": boxes, "scores": scores, "classes": rng.integers(0, 3, 30), "masks": rng.random((30, 7, 7))}


@pytest.mark.parametrize(
    ("part", "change", "column"),
    [
        ("boxes", lambda v: v + np.float32(0.02), "boxes"),
        ("boxes", lambda v: v + 8, "kept"),
        ("scores", lambda v: v + np.float32(2e-5), "scores"),
        ("scores", lambda v: v * np.nan, "scores"),
        ("classes", lambda v: (v + 1) % 3, "kept"),
        ("masks", lambda v: v + 2e-4, "masks"),
        ("masks", lambda v: v.transpose(0, 2, 1), "masks"),
    ],
)
def test_mistakes_in_detections_are_noticed(part: str, change: Any, column: str) -> None:
    wanted = found()
    assert compare(wanted, wanted)[0].failed == ()
    assert column in compare({**wanted, part: change(wanted[part])}, wanted)[0].failed


def test_a_lost_and_an_invented_detection_are_counted() -> None:
    wanted = found()
    fewer = {name: values[1:] for name, values in wanted.items()}
    assert compare(fewer, wanted)[0].errors["kept"] == compare(wanted, fewer)[0].errors["kept"] == 1


def test_errors_that_are_no_numbers_fail() -> None:
    assert Row({"heads": float("nan")}).failed == ("heads",)
    assert relative(np.zeros(3), np.zeros(4)) > BOUNDS["heads"]


def test_a_mask_in_the_wrong_place_is_noticed(reference: Path) -> None:
    picture = reference / "end_to_end" / "550_r50" / "img1.npz"
    data = np.load(picture)
    exact = {"boxes": data["raw_boxes"], "masks": data["raw_masks"][:, 0]}
    same = {i: i for i in range(len(exact["boxes"]))}
    assert networks.wrong_pixels(exact, same, picture) == 0
    for mistake in ({"boxes": exact["boxes"] + 0.5}, {"masks": exact["masks"].transpose(0, 2, 1)}):
        assert networks.wrong_pixels({**exact, **mistake}, same, picture) > 10
