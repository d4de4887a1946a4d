"""`eval`: COCO average precision and recall of one or more models on annotated pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.evaluate.annotations import Annotations, Picture, read_annotations
from trt_blendmask.evaluate.confusion import SCORE, Confusion
from trt_blendmask.evaluate.page import confusion_svg, curves_svg, page_of, standalone
from trt_blendmask.evaluate.resize import ShortestEdge
from trt_blendmask.evaluate.scores import KINDS, Scores, percent, results_of, score
from trt_blendmask.files import check_outputs, check_writable, write_texts
from trt_blendmask.layout import columns, counted
from trt_blendmask.paste import check_mode
from trt_blendmask.runtime.choice import GpuOptions, model_files
from trt_blendmask.runtime.images import read_image
from trt_blendmask.runtime.model import Model, load
from trt_blendmask.runtime.progress import ProgressLine, StageClock
from trt_blendmask.runtime.stop import StopSignals
from trt_blendmask.structures import U8, Detections

_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_100")


@dataclass(frozen=True)
class ModelReport:
    """One model.

    Attributes:
        label: a short name, unlike those of the others. how: what ran it.
        box, mask: its scores.
        latency_ms: of each picture, letterbox to detections, by the host's clock.
        confusion: what it takes for what, and where it fails.
    """

    model: Path
    label: str
    how: str
    box: Scores
    mask: Scores
    latency_ms: tuple[float, ...]
    confusion: Confusion

    @property
    def median_ms(self) -> float:
        return float(np.median(self.latency_ms))

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": str(self.model),
            "how": self.how,
            "box": asdict(self.box),
            "mask": asdict(self.mask),
            "latency_ms": {"median": self.median_ms, "p95": float(np.percentile(self.latency_ms, 95))},
            "confusion": {
                "score": SCORE,
                "names": [*self.confusion.names, "(nothing)"],
                "matrix": self.confusion.matrix.tolist(),
            },
            "failures": [failure.sentence() for failure in self.confusion.worst()],
        }


@dataclass(frozen=True)
class EvalReport:
    """What an evaluation found.

    Attributes:
        pictures: how many were judged, of `wanted`. absent, unreadable: how many were not there, or no
            pictures of the annotated size.
        stopped: Ctrl-C cut it short: the scores are of the pictures until then.
        resize: AdelaiDet's rule, None: the letterbox. paste: "exact" or "reference", how masks were pasted.
        notes: what else the reader must know. files: that were written.
    """

    annotations: Path
    models: tuple[ModelReport, ...]
    pictures: int
    wanted: int
    absent: int
    unreadable: int
    stopped: bool
    resize: ShortestEdge | None
    paste: str
    notes: tuple[str, ...]
    files: tuple[Path, ...] = field(default=())

    def lines(self) -> list[str]:
        """In words, for a person."""
        rows: list[tuple[str, ...]] = [("", *_COLUMNS, "ms")]
        for one in self.models:
            for kind in KINDS:
                scores: Scores = getattr(one, kind)
                cells = (percent(scores.overall[name]) for name in _COLUMNS)
                rows.append((f"{one.label} {kind}", *cells, f"{one.median_ms:.1f}" if kind == "mask" else ""))
        head = f"{self.pictures} of {counted(self.wanted, 'picture')}, {self.annotations}"
        lines = [head, *columns(rows), *self.notes]
        return [*lines, f"Wrote {self.files[0]} and {self.files[1]}"] if self.files else lines

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file; the scores are pycocotools' own, -1 where there is nothing to find."""
        return {
            "annotations": str(self.annotations),
            "pictures": self.pictures,
            "wanted": self.wanted,
            "absent": self.absent,
            "unreadable": self.unreadable,
            "stopped": self.stopped,
            "resize": asdict(self.resize) if self.resize else "letterbox",
            "paste": self.paste,
            "notes": list(self.notes),
            "models": [one.as_dict() for one in self.models],
        }


def evaluate(
    models: Sequence[Path],
    annotations: Path,
    images: Path,
    output: Path,
    most: int | None = None,
    resize: ShortestEdge | None = None,
    paste: str = "exact",
    device: str = "auto",
    gpu: GpuOptions | None = None,
    shows_progress: bool = False,
) -> EvalReport:
    """Run models on annotated pictures, one picture after another through all of them, and judge what they find.

    Ctrl-C ends the pictures, not the report: it is of the pictures until then, and `stopped` is True.

    Args:
        models: deployable ONNX files or engines.
        annotations: COCO instances JSON. images: folder of its pictures. most: only so many of them, the first by id.
        output: folder for eval.html, eval.json, and per model the COCO results that were judged, precision-recall
            curves and confusion as SVG.
        resize: AdelaiDet's rule, None for the letterbox. paste: "exact" or "reference", see `trt_blendmask.paste`.
        device, gpu: see `trt_blendmask.load`.

    Raises:
        UsageError, InputMissingError, DataError, OutputError: with what to do about it; as `trt_blendmask.load`, too.
    """
    if not models:
        raise UsageError("Expected at least one model, got none: trt-blendmask eval MODEL ...")
    check_mode(paste)
    labels = _labels(models)
    page, facts = output / "eval.html", output / "eval.json"
    results = [{kind: output / f"{label}.{kind}.json" for kind in KINDS} for label in labels]
    drawings = [(output / f"{label}.precision_recall.svg", output / f"{label}.confusion.svg") for label in labels]
    files = [page, facts, *(file for places in results for file in places.values())]
    files += [file for pair in drawings for file in pair]
    check_outputs(files, [annotations, *(file for model in models for file in model_files(model))])
    truth = read_annotations(annotations, images, most)
    with ExitStack() as stack:
        loaded = [stack.enter_context(load(path, device, gpu=gpu)) for path in models]
        judges = [_Judge(model, path, truth, resize, paste) for model, path in zip(loaded, models, strict=True)]
        check_writable(page)
        line = ProgressLine(shows_progress, len(truth.pictures))
        stack.callback(line.close)
        done, unreadable, stopped = _run(judges, truth, line)
    for judge, places in zip(judges, results, strict=True):  # before the scores, which take long, too
        write_texts({file: json.dumps(results_of(judge.found, kind)) for kind, file in places.items()})
    wanted = len(truth.pictures) + truth.absent
    notes = [*dict.fromkeys(note for judge in judges for note in judge.notes)]  # once of a model that is named twice
    notes += _notes(truth, images, wanted, unreadable, done)
    if stopped:
        notes.append(f"Stopped by Ctrl-C after {len(done)} of {counted(wanted, 'picture')}: the scores are of these.")
    reports = tuple(judge.report(label, done) for judge, label in zip(judges, labels, strict=True))
    report = EvalReport(
        annotations=annotations,
        models=reports,
        pictures=len(done),
        wanted=wanted,
        absent=truth.absent,
        unreadable=unreadable,
        stopped=stopped,
        resize=resize,
        paste=paste,
        notes=tuple(notes),
        files=tuple(files),
    )
    texts = {page: page_of(report), facts: json.dumps(report.as_dict(), indent=1) + "\n"}
    for one, (curves, confusion) in zip(reports, drawings, strict=True):
        texts |= {curves: standalone(curves_svg(one)), confusion: standalone(confusion_svg(one.confusion))}
    write_texts(texts)
    return report


class _Judge:
    """One model, and what it has found so far."""

    def __init__(self, model: Model, path: Path, truth: Annotations, resize: ShortestEdge | None, paste: str) -> None:
        names = model.spec.class_names
        self._model, self._path, self._truth, self._resize, self._paste = model, path, truth, resize, paste
        self._categories = truth.categories_of(names, path)
        self._confusion = Confusion(truth, self._categories)
        self.found: list[dict[str, Any]] = []
        self._ms: list[float] = []
        if resize:
            resize.check({picture.wh for picture in truth.pictures}, model.spec, str(path))
        strange = [name for name, category in zip(names, self._categories, strict=True) if category is None]
        missed = truth.to_find(truth.coco.imgs).difference(self._categories)
        unknown = [name for name, id_ in zip(truth.class_names, truth.category_ids, strict=True) if id_ in missed]
        self.notes = [f"Classes of '{path}' that are not annotated and not judged: {_few(strange)}."] if strange else []
        if unknown:
            self.notes.append(f"Annotated classes that '{path}' does not know, all missed: {_few(unknown)}.")

    def detect(self, image: U8) -> tuple[Detections, float]:
        """What is in the picture, and the milliseconds that the model took, letterbox to detections."""
        placed = self._resize.place(image, self._model.spec) if self._resize else image
        began = time.perf_counter()
        found = self._model(placed)
        spent = 1e3 * (time.perf_counter() - began)
        return self._resize.back(found, (image.shape[1], image.shape[0])) if self._resize else found, spent

    def note(self, picture: Picture, image: U8, found: Detections, ms: float) -> None:
        """Count what `detect` found in `image` (uint8 [H, W, 3] BGR) and the milliseconds that it took."""
        for row in found.to_coco(self._paste):
            place = row["category_id"] - 1
            category = self._categories[place] if 0 <= place < len(self._categories) else None
            if category is not None:
                self.found.append({**row, "image_id": picture.image_id, "category_id": category})
        self._confusion.add(picture.image_id, picture.file.name, image, found)
        self._ms.append(ms)

    def report(self, label: str, done: list[int]) -> ModelReport:
        box, mask = (score(self._truth.coco, self.found, kind, done) for kind in KINDS)
        return ModelReport(self._path, label, self._model.how, box, mask, tuple(self._ms), self._confusion)


def _run(judges: list[_Judge], truth: Annotations, line: ProgressLine) -> tuple[list[int], int, bool]:
    """Ids of the pictures that all models have seen, how many cannot be judged, and whether Ctrl-C came."""
    done: list[int] = []
    unreadable, clock = 0, StageClock()
    try:
        for picture in truth.pictures:
            try:
                with clock.measure("decode"):
                    image = read_image(picture.file)
            except (OSError, DataError, InputMissingError):
                unreadable += 1
                continue
            fits = (image.shape[1], image.shape[0]) == picture.wh
            if not fits and done:  # hours of work are not lost for one
                unreadable += 1
                continue
            if not fits:
                raise DataError(
                    f"Expected a picture of {picture.wh[0]} x {picture.wh[1]}, as '{truth.path}' says, but "
                    f"'{picture.file}' has {image.shape[1]} x {image.shape[0]}: annotations and pictures do not belong "
                    "together. Name the folder that has them: --images DIR"
                )
            with clock.measure("network"):
                found = [judge.detect(image) for judge in judges]
            with StopSignals() as stop:  # a picture counts for all models or for none
                for judge, (detections, ms) in zip(judges, found, strict=True):
                    judge.note(picture, image, detections, ms)
                done.append(picture.image_id)
                line.step(clock)
            if stop.asked:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        if not done:
            raise
        return done, unreadable, True
    if not done:
        raise DataError(f"Expected pictures, but none of {unreadable} can be read. Name the folder that has them.")
    return done, unreadable, False


def _notes(truth: Annotations, images: Path, wanted: int, unreadable: int, done: list[int]) -> list[str]:
    notes, pictures = [], counted(wanted, "picture")
    if not truth.to_find(done):
        notes.append(
            f"In these pictures '{truth.path}' has no object to find, crowds aside: there is nothing to score."
        )
    if truth.absent:
        notes.append(f"Not in '{images}' and left out: {truth.absent} of {pictures}.")
    if unreadable:
        notes.append(f"Unreadable, or of another size, and left out: {unreadable} of {pictures}.")
    if truth.strays:
        notes.append(
            f"Of pictures that '{truth.path}' does not list, and left out: {counted(truth.strays, 'annotation')}."
        )
    if 0 in truth.coco.anns:
        notes.append(f"pycocotools never counts annotation 0 as found. Number those of '{truth.path}' from 1.")
    return notes


def _labels(models: Sequence[Path]) -> list[str]:
    stems = [path.stem for path in models]
    return [f"{stem}_{k}" for k, stem in enumerate(stems, 1)] if len(set(stems)) < len(stems) else stems


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
