"""How far the detections of two models agree: the measure of a quantised model that needs no labels.

Detections of the same picture are matched within a class, the best box IoU first. What is counted is what a user sees:
objects found by both, and masks in pixels of the frame (the two masks of a pair lie in boxes of their own, so their
cells cannot be compared).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trt_blendmask.defaults import COUNTED_SCORE
from trt_blendmask.errors import UsageError
from trt_blendmask.paste import Patch, paste
from trt_blendmask.structures import F32, Detections

SCORE = COUNTED_SCORE
FADE = 0.1  # about that score, where a smooth count lets a detection fade out
IOU = 0.5  # of the boxes, for a match
SIZES = {"small": 32**2, "medium": 96**2, "large": float("inf")}  # COCO's, in pixels of the reference's mask, below


@dataclass(frozen=True)
class Agreement:
    """How far two models agree over a set of pictures.

    Attributes:
        f1: 2 x matched / (found by one + found by the other); 1 where neither found anything.
        box_iou, mask_iou: mean over the matched pairs; the masks pasted into the frame. Without pairs 1 where neither
            model found anything, else 0.
        by_size: mask IoU of the pairs of each of `SIZES` that occurs: a pixel more or less is much of a small object.
        score_shift: mean absolute difference of the scores of the matched pairs.
        worst_index: the picture with the least `quality`, the first of equals.
        reference_count, other_count, matched: objects found by the one, by the other, by both.
    """

    f1: float
    box_iou: float
    mask_iou: float
    score_shift: float
    worst_index: int
    reference_count: int
    other_count: int
    matched: int
    by_size: Mapping[str, float] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """F1 x mask IoU, the panoptic quality of the one taken as truth for the other (arXiv 1801.00868)."""
        return self.f1 * self.mask_iou

    def sentence(self) -> str:
        sizes = ", ".join(f"{size} {iou:.4f}" for size, iou in self.by_size.items())
        return (
            f"F1 {self.f1:.4f}, box IoU {self.box_iou:.4f}, mask IoU {self.mask_iou:.4f}"
            f"{f' ({sizes} objects)' if sizes else ''}, score shift {self.score_shift:.4f} ({self.matched} matched of "
            f"{self.reference_count} and {self.other_count})"
        )


def compare_detections(
    reference: Sequence[Detections], other: Sequence[Detections], *, score: float = SCORE
) -> Agreement:
    """Agreement of `other` with `reference`, picture by picture, from `score` up, at box IoU 0.5.

    Raises:
        UsageError: not the same number of pictures, or none.
    """
    if len(reference) != len(other) or not reference:
        raise UsageError(f"Expected as many pictures from both models, got {len(reference)} and {len(other)}.")
    return summarise([compare_one(a.above(score), b.above(score)) for a, b in zip(reference, other, strict=True)])


def summarise(pictures: Sequence[PictureAgreement]) -> Agreement:
    """The agreement over one or more pictures."""
    qualities = [picture.quality for picture in pictures]
    pairs = np.concatenate([picture.pairs for picture in pictures])
    counts = sum(picture.reference_count for picture in pictures), sum(picture.other_count for picture in pictures)
    both = len(pairs)
    empty = 1.0 if sum(counts) == 0 else 0.0
    box_iou, mask_iou, shift, _ = pairs.mean(axis=0).tolist() if both else (empty, empty, 0.0, 0.0)
    f1 = 2 * both / sum(counts) if sum(counts) else 1.0
    return Agreement(f1, box_iou, mask_iou, shift, int(np.argmin(qualities)), *counts, both, _by_size(pairs))


def smooth_quality(reference: Sequence[Detections], other: Sequence[Detections]) -> float:
    """F1 x mask IoU as `Agreement.quality`, but without a step at score 0.3: 0 to 1.

    A detection counts with a weight that rises from 0 at score 0.2 to 1 at 0.4. Where few pictures must tell models
    apart that differ little, detections about the threshold would else decide.
    """
    whole = shared = 0.0
    for one, two in zip(reference, other, strict=True):
        a, b = one.above(SCORE - FADE), two.above(SCORE - FADE)
        weights = [np.clip((x.scores.astype(np.float64) - SCORE + FADE) / (2 * FADE), 0, 1) for x in (a, b)]
        whole += float(weights[0].sum() + weights[1].sum())
        ours, theirs = paste(a), paste(b)
        for i, j in greedy(class_ious(a, b)):
            shared += (weights[0][i] + weights[1][j]) * mask_iou(ours[i], theirs[j])
    return shared / whole if whole else 1.0


@dataclass(frozen=True)
class PictureAgreement:
    """How far two models agree on one picture.

    Attributes:
        matches: which of the one goes with which of the other, by their places; the best box IoU first.
        pairs: float64 [matched, 4]: box IoU, mask IoU, score difference, pixels of the reference's mask.
        reference_count, other_count: objects found by the one and by the other.
    """

    matches: tuple[tuple[int, int], ...]
    pairs: npt.NDArray[np.float64]
    reference_count: int
    other_count: int

    @property
    def quality(self) -> float:
        """As `Agreement.quality`."""
        found = self.reference_count + self.other_count
        return float(2 * self.pairs[:, 1].sum() / found) if found else 1.0


def compare_one(reference: Detections, other: Detections) -> PictureAgreement:
    """Agreement on one picture of all that was found."""
    ious = class_ious(reference, other)
    matches = greedy(ious)
    ours, theirs = paste(reference), paste(other)
    pairs = [
        (
            ious[i, j],
            mask_iou(ours[i], theirs[j]),
            abs(float(reference.scores[i]) - float(other.scores[j])),
            area_of(ours[i]),
        )
        for i, j in matches
    ]
    rows = np.array(pairs, dtype=np.float64).reshape(-1, 4)
    return PictureAgreement(tuple(matches), rows, len(reference), len(other))


def _by_size(pairs: npt.NDArray[np.float64]) -> dict[str, float]:
    found = {}
    least = 0.0
    for size, most in SIZES.items():
        chosen = (pairs[:, 3] >= least) & (pairs[:, 3] < most)
        if chosen.any():
            found[size] = float(pairs[chosen, 1].mean())
        least = most
    return found


def greedy(ious: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of row and column, the greatest value first, each row and column once; values below `IOU` never."""
    rows, columns = np.nonzero(ious >= IOU)
    order = np.argsort(-ious[rows, columns], kind="stable")
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    return pairs


def match_rest(ious: npt.NDArray[np.float64], matches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs as `greedy` of what `matches` has left over: with IoUs of any class, those that change their class."""
    left = ious.copy()
    for i, j in matches:
        left[i, :], left[:, j] = 0, 0
    return greedy(left)


def class_ious(one: Detections, other: Detections) -> npt.NDArray[np.float64]:
    """IoU of every box with every other of the same class, float64 [n, m]; 0 for other classes."""
    return np.where(one.classes[:, None] == other.classes[None], box_ious(one.xyxy, other.xyxy), 0)


def box_ious(one: F32, other: F32) -> npt.NDArray[np.float64]:
    """IoU of every box [n, 4] with every box [m, 4], float64 [n, m]; a box without area has 0."""
    a, b = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    areas = [np.clip(x[..., 2:] - x[..., :2], 0, None).prod(axis=-1) for x in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def mask_iou(one: Patch | None, other: Patch | None) -> float:
    """Of two patches of the same frame; 1 where both are empty."""
    areas = [area_of(patch) for patch in (one, other)]
    if one is None or other is None or not all(areas):
        return float(areas[0] == areas[1])
    x, y = max(one.x, other.x), max(one.y, other.y)
    x2, y2 = (min(a, b) for a, b in zip(end_of(one), end_of(other), strict=True))
    if x2 <= x or y2 <= y:
        return 0.0
    crops = [p.mask[y - p.y : y2 - p.y, x - p.x : x2 - p.x] for p in (one, other)]
    shared = int((crops[0] & crops[1]).sum())
    return shared / (sum(areas) - shared)


def area_of(patch: Patch | None) -> int:
    """Pixels of the mask; 0 of none."""
    return 0 if patch is None else int(patch.mask.sum())


def end_of(patch: Patch) -> tuple[int, int]:
    """The first x and y behind the patch, in pixels of the frame."""
    rows, columns = patch.mask.shape
    return patch.x + columns, patch.y + rows
