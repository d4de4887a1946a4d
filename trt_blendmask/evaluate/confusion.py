"""What a model takes for what, and on which pictures it fails most."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.agreement import IOU, box_ious, greedy, match_rest
from trt_blendmask.evaluate.annotations import Annotations
from trt_blendmask.paste import Patch, clip_boxes, visible
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.runtime.panels import beside, paint
from trt_blendmask.structures import F32, U8, Detections

SCORE = 0.5  # below it a detection is not counted here
GALLERY = 12
_RIGHT, _MISSED, _OTHER = (90, 200, 60), (70, 60, 255), (30, 160, 255)  # BGR
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Failure:
    """One picture: objects missed, found where there are none, and found as another class; `picture` shows them."""

    name: str
    missed: int
    false: int
    confused: int
    picture: U8

    def sentence(self) -> str:
        return f"{self.name}: {self.missed} missed, {self.false} where there are none, {self.confused} of another class"


class Confusion:
    """Counts objects by what they are and what they were taken for.

    Attributes:
        matrix: int64 [C + 1, C + 1]: rows what is there, columns what was found, by the place of the class in `names`;
            the last row: nothing there, the last column: not found.
        names: of the C classes.
    """

    def __init__(self, annotations: Annotations, categories: list[int | None]) -> None:
        """`categories`: the category id of each class of the model."""
        self.names = annotations.class_names
        self.matrix: I64 = np.zeros((len(self.names) + 1, len(self.names) + 1), np.int64)
        place = {category: k for k, category in enumerate(annotations.category_ids)}
        self._annotations, self._place = annotations, place
        self._place_of_class = np.array([-1 if c is None else place[c] for c in categories], np.int64)
        self._worst: list[tuple[int, int, Failure]] = []
        self._pictures = 0

    def add(self, image_id: int, name: str, image: U8, detections: Detections) -> None:
        """One picture and all that was found in it; objects in a crowd of their class are not held against it."""
        rows = self._annotations.of(image_id)
        truth = [row for row in rows if not row["iscrowd"]]
        found = self._judged(detections)
        kinds = self._place_of_class[found.classes]
        what = np.array([self._place[row["category_id"]] for row in truth], np.int64)
        ious = box_ious(_xyxy(truth), found.xyxy)
        right = greedy(np.where(what[:, None] == kinds[None], ious, 0))
        confused = match_rest(ious, right)
        missed = sorted(set(range(len(truth))) - {i for i, _ in (*right, *confused)})
        over = set(range(len(found))) - {j for _, j in (*right, *confused)}
        crowds = [row for row in rows if row["iscrowd"]]
        false = [j for j in sorted(over) if not self._in_crowd(found.xyxy[j], int(kinds[j]), crowds)]
        for i, j in (*right, *confused):
            self.matrix[what[i], kinds[j]] += 1
        for i in missed:
            self.matrix[what[i], -1] += 1
        for j in false:
            self.matrix[-1, kinds[j]] += 1
        self._keep(name, image, found, truth, missed, false, [i for i, _ in confused])
        self._pictures += 1

    def worst(self) -> list[Failure]:
        """At most `GALLERY` pictures, the most failures first; none without any."""
        return [failure for *_, failure in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))]

    def _judged(self, detections: Detections) -> Detections:
        known = visible(detections) & (detections.classes >= 0) & (detections.classes < len(self._place_of_class))
        known &= detections.scores >= SCORE
        sure = detections.keep(known)
        sure = sure.keep(self._place_of_class[sure.classes] >= 0)
        return replace(sure, xyxy=clip_boxes(sure.xyxy, sure.frame_wh))  # as the boxes of COCO results are

    def _in_crowd(self, box: F32, kind: int, crowds: list[dict[str, Any]]) -> bool:
        for row, crowd in zip(crowds, _xyxy(crowds), strict=True):
            sides = np.clip(np.minimum(box[2:], crowd[2:]) - np.maximum(box[:2], crowd[:2]), 0, None)
            area = float(np.clip(box[2:] - box[:2], 0, None).prod())
            if self._place[row["category_id"]] == kind and area and float(sides.prod()) / area >= IOU:
                return True
        return False

    def _keep(
        self,
        name: str,
        image: U8,
        found: Detections,
        truth: list[dict[str, Any]],
        missed: list[int],
        false: list[int],
        confused: list[int],
    ) -> None:
        count = len(missed) + len(false) + len(confused)
        if not count or (len(self._worst) == GALLERY and count <= self._worst[0][0]):
            return
        one, two = image.copy(), image.copy()
        for i, row in enumerate(truth):
            colour = _MISSED if i in missed else _OTHER if i in confused else _RIGHT
            paint(one, [Patch(0, 0, self._annotations.mask(row) > 0)], colour)
        draw(two, found)
        picture = beside([(f"truth: {len(truth)} (red: missed)", one), (f"found: {len(found)}", two)])
        entry = (count, -self._pictures, Failure(name, len(missed), len(false), len(confused), picture))
        (heapq.heappush if len(self._worst) < GALLERY else heapq.heappushpop)(self._worst, entry)


def _xyxy(rows: list[dict[str, Any]]) -> F32:
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float32).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
