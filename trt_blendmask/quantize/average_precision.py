"""What a quantised model costs in mask AP, estimated without labels.

Rounding moves masks to and fro, and against labels most of that cancels out, as the float model is off there, too.
Against the float model's own detections nothing cancels: a file that costs a third of a point loses seven there. So
the truth here is what the float model finds in the mirrored picture, mirrored back: another opinion on the same
objects, from which it differs itself. Points of AP lost against that are of the size of those lost against labels:
better and worse files of the bundled model lost 0.12, 0.33, 0.34, 0.61, 0.78 and 3.03 against the labels of 128 scenes
and by this 0.05, 0.43, 0.03, 0.19, 0.97 and 2.55 (benchmarks/ap_without_labels.py): an estimate good to 0.4 or so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.agreement import SCORE, mask_iou
from trt_blendmask.paste import Patch, paste
from trt_blendmask.structures import F64, U8, Detections

IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
Bool = npt.NDArray[np.bool_]


def mirrored(image: U8) -> U8:
    """Left and right of a picture swapped."""
    return np.asarray(cv2.flip(image, 1))


def truth_of(found: Detections) -> Detections:
    """What was found in a mirrored picture from score 0.3 up, in the picture's own coordinates."""
    sure = found.above(SCORE)
    xyxy = sure.xyxy.copy()
    xyxy[:, [0, 2]] = sure.frame_wh[0] - sure.xyxy[:, [2, 0]]
    masks = np.ascontiguousarray(sure.masks[:, :, ::-1])
    return Detections(xyxy, sure.scores, sure.classes, masks, sure.frame_wh, sure.class_names)


def mask_ap(truth: Sequence[Detections], found: Sequence[Detections]) -> float:
    """COCO mask AP (0.50:0.95, mean over the classes in `truth`), 0 to 100; 100 where `truth` is empty."""
    columns = [_match(a, b) for a, b in zip(truth, found, strict=True)]
    scores, classes, hits = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    wanted = np.concatenate([one.classes for one in truth])
    values = [
        _precision(scores[classes == kind], hits[classes == kind], int((wanted == kind).sum()))
        for kind in np.unique(wanted)
    ]
    return 100 * float(np.mean(values)) if values else 100.0


def _match(truth: Detections, found: Detections) -> tuple[F64, npt.NDArray[np.int32], Bool]:
    """Scores, classes and, bool [n, 10], whether each detection is a hit at each IoU: the best scores choose first."""
    order = np.argsort(-found.scores, kind="stable")
    hits = np.zeros((len(order), len(IOUS)), dtype=np.bool_)
    theirs, ours = paste(truth), paste(found)
    taken = np.zeros((len(truth), len(IOUS)), dtype=np.bool_)
    for row, i in enumerate(order.tolist()):
        ious = dict(_overlaps(found.classes[i], ours[i], truth.classes, theirs))
        for k, least in enumerate(IOUS):
            free = [(iou, j) for j, iou in ious.items() if iou >= least and not taken[j, k]]
            if free:
                taken[max(free)[1], k] = hits[row, k] = True
    return found.scores[order].astype(np.float64), found.classes[order], hits


def _overlaps(
    kind: int, patch: Patch | None, kinds: npt.NDArray[np.int32], others: Sequence[Patch | None]
) -> Iterator[tuple[int, float]]:
    for j in np.flatnonzero(kinds == kind).tolist():
        yield j, mask_iou(patch, others[j])


def _precision(scores: F64, hits: Bool, wanted: int) -> float:
    """Mean over IoUs of the area below the precision-recall curve, at 101 recalls."""
    hits = hits[np.argsort(-scores, kind="stable")]
    right = np.cumsum(hits, axis=0)
    precision = right / np.arange(1, len(hits) + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    total = 0.0
    for k in range(hits.shape[1]):
        at = np.searchsorted(right[:, k] / wanted, _RECALLS, side="left")
        total += float(np.append(envelope[:, k], 0)[at].mean())
    return total / len(IOUS)
