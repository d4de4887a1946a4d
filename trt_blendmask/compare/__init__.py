"""`compare`: how far two models agree on pictures without labels, where they begin to differ, and on what most."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trt_blendmask.agreement import SCORE, Agreement
from trt_blendmask.calibrate.pictures import Picture, choose, left_out, open_pictures
from trt_blendmask.compare.measure import ClassRow, Measure, WorstPicture
from trt_blendmask.compare.page import page_of
from trt_blendmask.compare.stages import Seen, StageDifference, Watched
from trt_blendmask.defaults import GATES
from trt_blendmask.errors import DataError, OutputNameError, UsageError
from trt_blendmask.evaluate.class_names import places
from trt_blendmask.files import check_outputs, check_writable, write_texts
from trt_blendmask.layout import columns, counted
from trt_blendmask.runtime.choice import GpuOptions, model_files
from trt_blendmask.runtime.images import SUFFIXES
from trt_blendmask.runtime.progress import ProgressLine, StageClock
from trt_blendmask.runtime.stop import StopSignals
from trt_blendmask.structures import U8


@dataclass(frozen=True)
class CompareReport:
    """What a comparison found; `other` is measured against `reference`.

    Attributes:
        pictures, unreadable: how many were compared, and could not be read. stopped: Ctrl-C cut it short.
        agreement: at `score`. boundary_f, score_bias: see `Measure`.
        f1_at: F1 by least score and least box IoU.
        classes: a row per class. class_changes: same place, another name: (reference's, other's, how often).
        stages: where the tensors differ, in the order of computation. notes: what could not be compared and why.
        worst: the pictures of least agreement.
        files: that were written.
    """

    reference: str
    other: str
    score: float
    pictures: int
    unreadable: int
    stopped: bool
    agreement: Agreement
    boundary_f: float
    score_bias: float
    f1_at: dict[float, dict[float, float]]
    classes: tuple[ClassRow, ...]
    class_changes: tuple[tuple[str, str, int], ...]
    stages: tuple[StageDifference, ...]
    notes: tuple[str, ...]
    worst: tuple[WorstPicture, ...]
    files: tuple[Path, ...] = ()

    @property
    def found_nothing(self) -> bool:
        """Whether neither model found anything: all agreement is 1 then, and says nothing."""
        return not (self.agreement.reference_count or self.agreement.other_count)

    def gate_values(self) -> dict[str, float]:
        """What `fail_under` may bound, by name."""
        seen = self.agreement
        return dict(zip(GATES, (seen.f1, seen.box_iou, seen.mask_iou, self.boundary_f), strict=True))

    def sentence(self) -> str:
        """The result in one line."""
        head = f"{counted(self.pictures, 'picture')} at score {self.score:g}"
        if self.found_nothing:
            return (
                f"{head}: neither model found anything, so how far they agree cannot be told. Give pictures of what "
                "they were trained on, or a lower --score."
            )
        return f"{head}: {self.agreement.sentence()}, boundary F {self.boundary_f:.4f}"

    def lines(self) -> list[str]:
        """In words, for a person."""
        lines = [self.sentence()]
        heads = ("stage", "relative difference", "mean", "largest")
        rows = [(s.stage, f"{s.relative:.3g}", f"{s.mean:.3g}", f"{s.largest:.3g}") for s in self.stages]
        lines += columns([heads, *rows]) if rows else []
        lines += [f"{one} became {other}: {count} x" for one, other, count in self.class_changes[:3]]
        lines += self.notes
        return [*lines, f"Wrote {' and '.join(map(str, self.files))}"] if self.files else lines

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        worst = [{"picture": one.name, "quality": one.quality} for one in self.worst]
        seen = {**asdict(self.agreement), "boundary_f": self.boundary_f, "score_bias": self.score_bias}
        del seen["worst_index"]
        if self.found_nothing:
            seen |= dict.fromkeys(GATES)
        return {
            "reference": self.reference,
            "other": self.other,
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "stopped": self.stopped,
            "score": self.score,
            "agreement": seen,
            "f1": [{"score": s, "box_iou": iou, "f1": f1} for s, row in self.f1_at.items() for iou, f1 in row.items()],
            "classes": [asdict(row) for row in self.classes],
            "class_changes": [dict(zip(("reference", "other", "count"), c, strict=True)) for c in self.class_changes],
            "stages": [_finite(asdict(stage)) for stage in self.stages],
            "notes": list(self.notes),
            "worst": worst,
        }


def compare(
    reference: Path,
    other: Path,
    images: str,
    output: Path,
    n: int = 200,
    score: float = SCORE,
    device: str = "auto",
    gpu: GpuOptions | None = None,
    shows_progress: bool = False,
) -> CompareReport:
    """Run two models (deployable ONNX or engine, of any input sizes) on the same pictures and write what differs.

    Ctrl-C ends the pictures, not the report: what was compared until then is written, and `stopped` is True.

    Args:
        images: folder, text file with one path per line, video file or synthetic:conveyor; evenly spread, `n` at most.
        output: for the page (HTML); the same as JSON beside it.
        score: what scores less is not counted.
        device, gpu: see `trt_blendmask.load`.

    Raises:
        UsageError, InputMissingError, DataError, OutputError: with what to do about it; as `trt_blendmask.load`, too.
    """
    if not output.name:  # of ".", which has no suffix to change
        raise OutputNameError(f"Expected a file name to write, got the folder '{output}'. Type: -o compare.html")
    facts = output.with_suffix(".json")
    if output.suffix.lower() in SUFFIXES:
        raise UsageError(f"Expected a page to write, got '{output}', as pictures are named. Type: -o compare.html")
    check_outputs([output, facts], [*model_files(reference), *model_files(other), images])
    pictures = open_pictures(images)
    wanted = set(choose(pictures, n, False, lambda: None))
    measure = Measure(score)
    with ExitStack() as stack:
        one, two = (stack.enter_context(Watched(path, device, gpu)) for path in (reference, other))
        names = one.model.spec.class_names
        rename = renaming(names, two.model.spec.class_names, reference, other)
        notes = _notes(one, two, (reference, other))
        check_writable(output)
        line = ProgressLine(shows_progress, len(wanted))
        stack.callback(line.close)
        unreadable, stopped = _run(lambda image: (one(image), rename(two(image))), pictures.read(wanted), measure, line)
    if not measure.pictures:
        raise DataError(
            f"Expected pictures in '{images}', but none of {unreadable} can be read. Name others: --images DIR"
        )
    if measure.stages.other_shape:
        shapes = ", ".join(measure.stages.other_shape)
        notes.append(f"Not compared, as their shapes differ between the models: {shapes}.")
    if unreadable:
        notes.append(left_out(unreadable))
    if stopped:
        notes.append(f"Stopped by Ctrl-C after {measure.pictures} of {counted(len(wanted), 'picture')}.")
    report = CompareReport(
        reference=str(reference),
        other=str(other),
        score=score,
        pictures=measure.pictures,
        unreadable=unreadable,
        stopped=stopped,
        agreement=measure.agreement(),
        boundary_f=measure.boundary_f(),
        score_bias=measure.score_bias(),
        f1_at=measure.f1_at(),
        classes=tuple(measure.classes(names)),
        class_changes=tuple(measure.class_changes()),
        stages=measure.stages.differences(),
        notes=tuple(notes),
        worst=tuple(measure.worst()),
    )
    return _write(report, output, facts)


def _run(
    see: Callable[[U8], tuple[Seen, Seen]], pictures: Iterable[Picture], measure: Measure, line: ProgressLine
) -> tuple[int, bool]:
    """How many pictures cannot be read, and whether Ctrl-C came."""
    unreadable, clock = 0, StageClock()
    try:
        for picture in pictures:
            if picture.image is None:
                unreadable += 1
                continue
            with clock.measure("network"):
                seen = see(picture.image)
            with StopSignals() as stop:  # a picture counts wholly or not at all
                measure.add(picture.name, picture.image, *seen)
                line.step(clock)
            if stop.asked:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        if not measure.pictures:
            raise
        return unreadable, True
    return unreadable, False


def require(report: CompareReport, least: Mapping[str, float]) -> None:
    """Refuse a report below a bound.

    Raises:
        DataError: below one of `least` (by the names of `defaults.GATES`), or neither model found anything.
    """
    if least and report.found_nothing:
        raise DataError(
            "Expected pictures in which the models find something, but in "
            f"{counted(report.pictures, 'picture')} neither finds anything above score {report.score:g}. Give pictures "
            "of what they were trained on."
        )
    values = report.gate_values()
    below = {name: bound for name, bound in least.items() if not values[name] >= bound}
    if below:
        expected = ", ".join(f"{name} >= {bound:g}" for name, bound in below.items())
        got = ", ".join(f"{name} {np.floor(1e4 * values[name]) / 1e4:.4f}" for name in below)  # 0.96999 is not 0.97
        page = shlex.quote(str(report.files[0]))
        raise DataError(f"Expected {expected} of '{report.other}', got {got}. See the worst pictures in {page}.")


def renaming(names: tuple[str, ...], others: tuple[str, ...], reference: Path, other: Path) -> Callable[[Seen], Seen]:
    """What gives the detections of the other model the reference's class numbers.

    Raises:
        DataError: a class that only one of them knows.
    """
    found = places(others, names)
    if len(names) != len(others) or sorted(place for place in found if place is not None) != list(range(len(names))):
        strange = [name for name, place in zip(others, found, strict=True) if place is None]
        missing = [name for name, place in zip(names, places(names, others), strict=True) if place is None]
        words = ", ".join(map(repr, (strange or missing)[:3])) or "a name twice"
        raise DataError(
            f"Expected models of the same classes, but '{reference}' has {len(names)} and '{other}' has {len(others)}, "
            f"and only one of them knows {words}. Compare models of one training."
        )
    table = np.array(found, dtype=np.int32)

    def rename(seen: Seen) -> Seen:
        old = seen.detections
        named = (old.classes >= 0) & (old.classes < len(table))
        classes = np.where(named, table[np.where(named, old.classes, 0)], old.classes)
        return replace(seen, detections=replace(old, classes=classes, class_names=names))

    return rename


def _notes(one: Watched, two: Watched, paths: tuple[Path, Path]) -> list[str]:
    sizes = [model.spec.input_hw for model in (one.model, two.model)]
    notes = []
    if sizes[0] != sizes[1]:
        words = " and ".join(f"{h} x {w}" for h, w in sizes)
        notes.append(f"The inputs differ ({words}): compared in pixels of the pictures.")
    blind = [str(path) for path, watched in zip(paths, (one, two), strict=True) if not watched.shows_inside]
    if blind:
        notes.append(f"Bases and attention are not compared: {' and '.join(blind)} shows its outputs only.")
    return notes


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def _write(report: CompareReport, output: Path, facts: Path) -> CompareReport:
    report = replace(report, files=(output, facts))
    write_texts({output: page_of(report), facts: json.dumps(report.as_dict(), indent=1, allow_nan=False) + "\n"})
    return report
