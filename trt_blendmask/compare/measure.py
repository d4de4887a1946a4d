"""What is counted over all pictures when two models are compared."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_blendmask.agreement import (
    Agreement,
    PictureAgreement,
    box_ious,
    class_ious,
    compare_one,
    greedy,
    match_rest,
    summarise,
)
from trt_blendmask.coco import class_name
from trt_blendmask.compare.boundary import boundary_f
from trt_blendmask.compare.stages import Seen, StageSums
from trt_blendmask.paste import paste
from trt_blendmask.structures import U8, Detections

SCORES = (0.1, 0.3, 0.5, 0.7)
IOUS = (0.5, 0.75, 0.9)
WORST = 10


@dataclass(frozen=True)
class ClassRow:
    """One class: objects found by each model and by both, and means over those found by both.

    Attributes:
        score_shift: of the other model's score less the reference's.
    """

    name: str
    reference_count: int
    other_count: int
    matched: int
    f1: float
    box_iou: float
    mask_iou: float
    boundary_f: float
    score_shift: float


@dataclass(frozen=True)
class WorstPicture:
    """One of the pictures on which the models agree least."""

    name: str
    quality: float
    image: U8
    found: tuple[Detections, Detections]


class Measure:
    """Sums up picture after picture; of the pictures themselves only the worst are kept."""

    def __init__(self, score: float) -> None:
        self.pictures = 0
        self.stages = StageSums()
        self._score = score
        self._agreements: list[PictureAgreement] = []
        self._rows: list[tuple[float, ...]] = []  # class, box IoU, mask IoU, boundary F, signed score shift
        self._found: list[npt.NDArray[np.int32]] = []  # classes that the reference found
        self._others: list[npt.NDArray[np.int32]] = []
        self._matched = np.zeros((len(SCORES), len(IOUS)), np.int64)
        self._counts = np.zeros(len(SCORES), np.int64)
        self._class_changes: dict[tuple[str, str], int] = {}
        self._worst: list[tuple[float, int, WorstPicture]] = []

    def add(self, name: str, image: U8, reference: Seen, other: Seen) -> None:
        """One picture that both models saw."""
        self._count_at_thresholds(reference.detections, other.detections)
        reference, other = reference.above(self._score), other.above(self._score)
        ours, theirs = reference.detections, other.detections
        agreement = compare_one(ours, theirs)
        self._agreements.append(agreement)
        self._found.append(ours.classes)
        self._others.append(theirs.classes)
        self._note_pairs(agreement, ours, theirs)
        self._note_class_changes(agreement, ours, theirs)
        self.stages.add(reference, other, agreement.matches)
        if agreement.quality < 1:
            entry = (-agreement.quality, -self.pictures, WorstPicture(name, agreement.quality, image, (ours, theirs)))
            (heapq.heappush if len(self._worst) < WORST else heapq.heappushpop)(self._worst, entry)
        self.pictures += 1

    def agreement(self) -> Agreement:
        return summarise(self._agreements)

    def boundary_f(self) -> float:
        """Mean over the matched pairs; without any 1 where neither model found anything, else 0."""
        if self._rows:
            return float(np.mean([row[3] for row in self._rows]))
        return float(not any(len(classes) for classes in (*self._found, *self._others)))

    def score_bias(self) -> float:
        """Mean of the other model's score less the reference's over the matched pairs."""
        return float(np.mean([row[4] for row in self._rows])) if self._rows else 0.0

    def f1_at(self) -> dict[float, dict[float, float]]:
        """F1 by least score and by least box IoU."""
        return {
            score: {
                iou: 2 * int(self._matched[s, k]) / int(self._counts[s]) if self._counts[s] else 1.0
                for k, iou in enumerate(IOUS)
            }
            for s, score in enumerate(SCORES)
        }

    def class_changes(self) -> list[tuple[str, str, int]]:
        """Objects that both models found but named differently, the commonest change first."""
        changes = ((one, other, count) for (one, other), count in self._class_changes.items())
        return sorted(changes, key=lambda change: (-change[2], change))

    def classes(self, names: tuple[str, ...]) -> list[ClassRow]:
        """A row for each class that either model found."""
        ours, theirs = (np.concatenate([np.zeros(0, np.int32), *found]) for found in (self._found, self._others))
        pairs = np.array(self._rows, dtype=np.float64).reshape(-1, 5)
        found = []
        for kind in np.union1d(ours, theirs).tolist():
            counts = int((ours == kind).sum()), int((theirs == kind).sum())
            rows = pairs[pairs[:, 0] == kind]
            means = rows[:, 1:].mean(axis=0).tolist() if len(rows) else [0.0] * 4
            name = names[kind] if 0 <= kind < len(names) else f"class {kind}"
            found.append(ClassRow(name, *counts, len(rows), 2 * len(rows) / sum(counts), *means))
        return found

    def worst(self) -> list[WorstPicture]:
        """At most `WORST`, the least agreement first; none on which the models agree wholly."""
        return [picture for *_, picture in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))]

    def _count_at_thresholds(self, reference: Detections, other: Detections) -> None:
        for s, score in enumerate(SCORES):
            a, b = reference.above(score), other.above(score)
            ious = class_ious(a, b)
            reached = np.array([ious[i, j] for i, j in greedy(ious)])
            self._matched[s] += [int((reached >= least).sum()) for least in IOUS]
            self._counts[s] += len(a) + len(b)

    def _note_pairs(self, agreement: PictureAgreement, ours: Detections, theirs: Detections) -> None:
        patches, others = paste(ours), paste(theirs)
        for (i, j), (box_iou, mask_iou, *_) in zip(agreement.matches, agreement.pairs.tolist(), strict=True):
            outline = boundary_f(patches[i], others[j], ours.frame_wh)
            shift = float(theirs.scores[j]) - float(ours.scores[i])
            self._rows.append((float(ours.classes[i]), box_iou, mask_iou, outline, shift))

    def _note_class_changes(self, agreement: PictureAgreement, ours: Detections, theirs: Detections) -> None:
        """Among what has no match of its own class."""
        ious = box_ious(ours.xyxy, theirs.xyxy)
        for i, j in match_rest(ious, agreement.matches):
            change = class_name(ours, int(ours.classes[i])), class_name(theirs, int(theirs.classes[j]))
            self._class_changes[change] = self._class_changes.get(change, 0) + 1
