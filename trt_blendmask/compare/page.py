"""A comparison as one HTML page that needs no other file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from trt_blendmask.compare.measure import WorstPicture
from trt_blendmask.html_page import html_table, page
from trt_blendmask.paste import Bool, Patch, paste
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.runtime.panels import beside, figure, paint
from trt_blendmask.structures import U8, Detections

if TYPE_CHECKING:
    from trt_blendmask.compare import CompareReport

_RED, _BLUE = (70, 60, 255), (255, 140, 30)  # BGR: only the reference, only the other


def page_of(report: CompareReport) -> str:
    """Summary, stages, F1 at thresholds, classes, and the worst pictures with the difference drawn."""
    seen = report.agreement
    body = [
        f"<p>{escape(report.other)} against {escape(report.reference)}.</p>",
        f"<p><b>{escape(report.sentence())}</b></p>",
        *(f"<p>{escape(note)}</p>" for note in report.notes),
    ]
    if seen.matched:
        body.append(f"<p>Scores move by {seen.score_shift:.4f} on average, upwards by {report.score_bias:+.4f}.</p>")
    if report.stages:
        heads = ("stage", "relative", "mean difference", "largest", "values")
        rows = [
            (s.stage, f"{s.relative:.3g}", f"{s.mean:.3g}", f"{s.largest:.3g}", f"{s.values:,}") for s in report.stages
        ]
        body.append(
            "<h2>Where it starts</h2><p>In the order of computation. Boxes in pixels, relative to their sides; "
            f"attention and masks of the objects that both models found.</p>{html_table(heads, rows)}"
        )
    ious = tuple(next(iter(report.f1_at.values())))
    thresholds = [(f"{s:g}", *(f"{f1:.4f}" for f1 in row.values())) for s, row in report.f1_at.items()]
    body.append(f"<h2>F1</h2>{html_table(('score from', *(f'box IoU {iou:g}' for iou in ious)), thresholds)}")
    body.append(f"<h2>Classes</h2>{_classes(report)}")
    if report.class_changes:
        changes = [(one, other, str(count)) for one, other, count in report.class_changes]
        body.append(f"<h2>Same place, another class</h2>{html_table(('reference', 'other', 'objects'), changes)}")
    if report.worst:
        body.append(f"<h2>The pictures that differ most: {len(report.worst)}</h2>")
        body += [_figure(picture) for picture in report.worst]
    return page("Comparison of two models", "\n".join(body))


def difference(image: U8, one: Detections, other: Detections) -> U8:
    """The picture in grey, and in it what only one of the two marks: red the first, blue the second."""
    grey = image.copy()
    grey[:] = (image.mean(axis=2, keepdims=True) * 0.6 + 60).astype(image.dtype)
    for kind in sorted({*one.classes.tolist(), *other.classes.tolist()}):
        patches = [paste(found.keep(found.classes == kind)) for found in (one, other)]
        covers = [_cover(found, image.shape[:2]) for found in patches]
        for mine, others, colour in ((0, 1, _RED), (1, 0, _BLUE)):
            paint(grey, [Patch(0, 0, covers[mine] & ~covers[others])], colour, 0.9)
    return grey


def _cover(patches: list[Patch | None], hw: tuple[int, ...]) -> Bool:
    covered = np.zeros(hw, dtype=np.bool_)
    for patch in patches:
        if patch is not None:
            rows, columns = patch.mask.shape
            covered[patch.y : patch.y + rows, patch.x : patch.x + columns] |= patch.mask
    return covered


def _figure(picture: WorstPicture) -> str:
    panels = []
    for title, found in zip(("reference", "other"), picture.found, strict=True):
        drawn = picture.image.copy()
        draw(drawn, found)
        panels.append((f"{title}: {len(found)} objects", drawn))
    panels.append(("red: only reference, blue: only other", difference(picture.image, *picture.found)))
    return figure(beside(panels), f"{picture.name}: agreement {picture.quality:.4f}")


def _classes(report: CompareReport) -> str:
    heads = ("class", "reference", "other", "matched", "F1", "box IoU", "mask IoU", "boundary F", "score shift")
    rows = [
        (
            row.name,
            *(str(count) for count in (row.reference_count, row.other_count, row.matched)),
            f"{row.f1:.4f}",
            *(
                f"{value:.4f}" if row.matched else "-"
                for value in (row.box_iou, row.mask_iou, row.boundary_f, row.score_shift)
            ),
        )
        for row in report.classes
    ]
    return html_table(heads, rows)
