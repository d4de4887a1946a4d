"""COCO's average precision and recall, by pycocotools, as a table by size and class."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trt_blendmask.structures import F64

if TYPE_CHECKING:
    from pycocotools.coco import COCO

# In the order of COCOeval.stats.
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
KINDS = {"box": "bbox", "mask": "segm"}
CURVES = ("0.50", "0.75", "0.50:0.95")


@dataclass(frozen=True)
class Scores:
    """Of boxes or of masks, each from 0 to 1; -1 where there is nothing to find, as pycocotools has it.

    Attributes:
        overall: by `NAMES`.
        per_class: class name -> {"AP", "AP50", "AP75", "AR_100"}.
        precision: by `CURVES`, the mean precision of the classes at 101 recalls from 0 to 1.
    """

    overall: dict[str, float]
    per_class: dict[str, dict[str, float]]
    precision: dict[str, tuple[float, ...]]


def results_of(found: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """COCO results that hold only what `kind` ("box" or "mask") is judged by.

    pycocotools takes the area of a box, if there is one, for that of the mask: without it small, medium and large are
    told by the mask's pixels, as in detectron2 and published tables.
    """
    drop = "segmentation" if kind == "box" else "bbox"
    return [{key: value for key, value in row.items() if key not in (drop, "category_name")} for row in found]


def score(truth: COCO, found: Sequence[dict[str, Any]], kind: str, image_ids: Sequence[int]) -> Scores:
    """Judge COCO results of the pictures `image_ids`; `kind` is "box" or "mask"."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        rows = deepcopy(results_of(found, kind))  # it writes into them
        if rows:
            loaded = truth.loadRes(rows)
        else:  # which loadRes does not take
            loaded = COCO()
            loaded.dataset = {**truth.dataset, "annotations": []}
            loaded.createIndex()
        judged = COCOeval(truth, loaded, KINDS[kind])
        judged.params.imgIds = list(image_ids)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    precision, recall = judged.eval["precision"], judged.eval["recall"]  # [IoU, recall, class, area, most], no recalls
    names = [category["name"] for category in truth.loadCats(judged.params.catIds)]
    per_class = {
        name: {
            "AP": _mean(precision[:, :, k, 0, -1]),
            "AP50": _mean(precision[0, :, k, 0, -1]),
            "AP75": _mean(precision[5, :, k, 0, -1]),
            "AR_100": _mean(recall[:, k, 0, -1]),
        }
        for k, name in enumerate(names)
    }
    curves = {"0.50": precision[:1], "0.75": precision[5:6], "0.50:0.95": precision}
    return Scores(
        dict(zip(NAMES, map(float, judged.stats), strict=True)),
        per_class,
        {name: _curve(values[:, :, :, 0, -1]) for name, values in curves.items()},
    )


def percent(value: float) -> str:
    """A score as a cell of a table."""
    return "-" if value < 0 else f"{100 * value:.2f}"


def _mean(values: F64) -> float:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else -1.0


def _curve(values: F64) -> tuple[float, ...]:
    """Mean over IoUs and classes of precision [IoU, recall, class]."""
    return tuple(_mean(values[:, k]) for k in range(values.shape[1]))
