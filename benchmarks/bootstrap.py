"""Whether two models' AP differ by more than the choice of the scenes explains: a paired bootstrap over scenes."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROUNDS, SEED = 1000, 0
COVERED = 95.0  # per cent


@dataclass(frozen=True)
class Difference:
    """AP of one model less that of another, in points, and the ends of its interval."""

    points: float
    low: float
    high: float

    @property
    def is_one(self) -> bool:
        """Whether 0 lies outside of the interval."""
        return self.low > 0 or self.high < 0

    def sentence(self) -> str:
        text = f"{self.points:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        return text if self.is_one else f"{text}: no difference"


class Matches:
    """What pycocotools matched in each scene for one model; AP of any choice of the scenes without matching again."""

    def __init__(self, truth: COCO, found: list[dict[str, Any]], kind: str, image_ids: list[int]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
            scored = COCOeval(truth, truth.loadRes(found), kind)
            params = scored.params
            params.imgIds, params.areaRng, params.areaRngLbl = image_ids, params.areaRng[:1], params.areaRngLbl[:1]
            params.maxDets = params.maxDets[-1:]
            scored.evaluate()
        self.scenes, self._recalls = len(image_ids), np.asarray(params.recThrs)
        rows = [scored.evalImgs[i : i + self.scenes] for i in range(0, len(scored.evalImgs), self.scenes)]
        self._classes = [_OneClass(row) for row in rows]

    def ap(self, times: npt.NDArray[np.int64]) -> float:
        """AP in points if each scene occurs so many `times`."""
        precisions = [one.precision(times, self._recalls) for one in self._classes if one.objects @ times > 0]
        return 100 * float(np.mean(precisions))


class _OneClass:
    """Detections of one class over all scenes, the surest first.

    Attributes:
        objects: int64 [scenes], how many there are to find.
    """

    def __init__(self, scenes: list[dict[str, Any] | None]) -> None:
        seen = [(i, scene) for i, scene in enumerate(scenes) if scene is not None]
        self.objects = np.zeros(len(scenes), np.int64)
        for i, scene in seen:
            self.objects[i] = np.count_nonzero(np.logical_not(scene["gtIgnore"]))
        scores = np.concatenate([np.zeros(0), *(scene["dtScores"] for _, scene in seen)])
        order = np.argsort(-scores, kind="stable")
        self._scene = np.concatenate([np.zeros(0, int), *(np.full(len(s["dtScores"]), i) for i, s in seen)])[order]
        matched, ignored = (
            np.concatenate([scene[key] for _, scene in seen], axis=1)[:, order].astype(bool)
            for key in ("dtMatches", "dtIgnore")
        )
        self._right, self._wrong = matched & ~ignored, ~matched & ~ignored  # [IoU threshold, detection]

    def precision(self, times: npt.NDArray[np.int64], recalls: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[IoU threshold, recall]: the best precision at that recall or a higher one, as pycocotools has it."""
        each = times[self._scene]
        right, wrong = (np.cumsum(kind * each, axis=1) for kind in (self._right, self._wrong))
        recall = right / (self.objects @ times)
        best = np.maximum.accumulate((right / np.maximum(right + wrong, 1))[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(best, ((0, 0), (0, 1)))  # a recall that is never reached: 0
        return np.stack([row[np.searchsorted(reached, recalls)] for row, reached in zip(padded, recall, strict=True)])


def differences(matches: dict[str, Matches], base: str, rounds: int = ROUNDS) -> dict[str, Difference]:
    """AP of every model less that of `base`, each resampling of the scenes taken for all of them."""
    count = matches[base].scenes
    rng = np.random.default_rng(SEED)
    ones = np.ones(count, np.int64)
    draws = [ones, *(np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(rounds))]
    points = {name: np.array([one.ap(draw) for draw in draws]) for name, one in matches.items()}
    ends = [(100 - COVERED) / 2, (100 + COVERED) / 2]
    found = {}
    for name, values in points.items():
        less = values - points[base]
        low, high = np.percentile(less[1:], ends) if rounds else (less[0], less[0])
        found[name] = Difference(float(less[0]), float(low), float(high))
    return found
