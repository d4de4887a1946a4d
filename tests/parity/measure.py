"""How far two results are apart, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# heads: relative to the largest value of the tensor, or 1 (AdelaiDet's float32 is 1.5e-5 from its own float64). kept:
# detections that one side has and the other has not. pixels: of the pasted masks, leaving out those within 1e-3 of one
# half, which rounding decides.
BOUNDS = {"heads": 5e-5, "kept": 0.0, "boxes": 1e-2, "scores": 1e-5, "masks": 1e-4, "pixels": 0.0}
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One comparison: the largest error by column of `BOUNDS`, of how many objects, and by tensor in `details`."""

    errors: dict[str, float]
    objects: int = 0
    details: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """Columns that are out of bounds; one that is not a number is."""
        return tuple(column for column, error in self.errors.items() if not error <= BOUNDS[column])


def largest(values: Any) -> float:
    """Of the absolute values; 0 where there are none, NaN where one is."""
    values = np.abs(np.asarray(values, np.float64))
    return float(values.max()) if values.size else 0.0


def relative(got: Any, wanted: Any) -> float:
    """The largest error as a part of the largest wanted value, or of 1; infinite where the shapes differ."""
    if got.shape != wanted.shape:
        return float("inf")
    return largest(got.astype(np.float64) - wanted) / max(1.0, largest(wanted))


def pairs(got: Arrays, wanted: Arrays) -> list[tuple[int, int]]:
    """Which detection of `got` is which of `wanted`: of the same class, within a pixel, nearest score first."""
    found, free = [], set(range(len(got["scores"])))
    for j, (box, score, kind) in enumerate(zip(wanted["boxes"], wanted["scores"], wanted["classes"], strict=True)):
        near = [i for i in free if got["classes"][i] == kind and np.abs(got["boxes"][i] - box).max() < 1]
        if near:
            i = min(near, key=lambda i: abs(float(got["scores"][i] - score)))
            free.remove(i)
            found.append((i, j))
    return found


def compare(got: Arrays, wanted: Arrays) -> tuple[Row, list[tuple[int, int]]]:
    """Detections: arrays boxes [n, 4], scores, classes [n] and, where both have them, masks [n, R, R]."""
    paired = pairs(got, wanted)
    ours, theirs = np.array(paired, np.int64).reshape(-1, 2).T
    errors = {
        "kept": float(len(got["scores"]) + len(wanted["scores"]) - 2 * len(paired)),
        "boxes": largest(got["boxes"][ours] - wanted["boxes"][theirs]),
        "scores": largest(got["scores"][ours] - wanted["scores"][theirs]),
    }
    if "masks" in got and "masks" in wanted:
        errors["masks"] = largest(got["masks"][ours] - wanted["masks"][theirs])
    return Row(errors, len(wanted["scores"])), paired


def filled(outputs: Arrays, image: int = 0) -> Arrays:
    """The filled slots of one image of a deployable model's outputs; empty ones must be empty."""
    count = int(outputs["count"][image])
    slots = {name: outputs[name][image] for name in ("boxes", "scores", "classes", "masks")}
    for name, values in slots.items():
        assert (values[count:] == (-1 if name == "classes" else 0)).all(), f"{name} of empty slots"
    assert (np.diff(slots["scores"][:count]) <= 0).all(), "scores descend"
    return {name: values[:count] for name, values in slots.items()}
