"""`calibrate`: pictures through the float network, into a table with a threshold for every activation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from trt_blendmask import __version__
from trt_blendmask.calibrate.collect import Tally, collect
from trt_blendmask.calibrate.network import Network
from trt_blendmask.calibrate.pictures import MIN_PICTURES, Pictures, choose, open_pictures
from trt_blendmask.calibrate.store import Observations, histograms_beside
from trt_blendmask.calibrate.table import TENSORRT, cache_header, cache_text, graph_sha256, write_table
from trt_blendmask.calibrate.threshold import METHODS, threshold
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.files import atomic_output, check_outputs, check_writable
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.runtime.progress import ProgressLine, StageClock, spell
from trt_blendmask.structures import CalibrationTable

SELECTIONS = ("even", "diverse")


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration did.

    Attributes:
        table, output: the table, and the file it was written to.
        histograms: the file with what was collected.
        tally: which pictures were used; resumed: how many of them an earlier run had counted.
        idle: tensors that were 0 throughout.
        mean_ms: milliseconds per picture and stage, of those counted now.
    """

    table: CalibrationTable
    output: Path
    histograms: Path
    tally: Tally
    resumed: int
    idle: tuple[str, ...]
    mean_ms: dict[str, float]

    def lines(self) -> list[str]:
        """In words, for a person."""
        used, left_out = len(self.tally.used), self.tally.left_out()
        before = f", {self.resumed} of them counted before" if self.resumed else ""
        spent = f" ({spell(self.mean_ms)} per picture)" if self.mean_ms else ""
        lines = [f"{used} pictures{before}{f'; left out: {left_out}' if left_out else ''}{spent}"]
        if self.idle:
            more = f" and {len(self.idle) - 3} more" if len(self.idle) > 3 else ""
            lines.append(f"Always zero, so that their range is a guess: {', '.join(self.idle[:3])}{more}.")
        lines.append(
            f"{len(self.table.ranges)} ranges by {self.table.method}: wrote {self.output}; {self.histograms} keeps the "
            "histograms, for other methods and reports"
        )
        return lines


def calibrate(
    model: str | os.PathLike[str],
    images: str,
    output: Path,
    n: int = 512,
    method: str = "mse",
    select: str | None = None,
    cache: Path | None = None,
    tensorrt: str = TENSORRT,
    shows_progress: bool = False,
) -> CalibrationReport:
    """Measure the ranges of the activations that INT8 inference quantises.

    What is collected stays beside `output` (see `histograms_beside`): a run that was stopped goes on where it was, and
    one with another method only reads it. Both hold for the same model and pictures; else it starts anew.

    Args:
        model: the float deployable ONNX.
        images: folder, text file with one path per line, video file or synthetic:conveyor.
        output: for the table. n: pictures at most. method: one of `METHODS`.
        select: "even", "diverse", None: diverse in a video, even among pictures.
        cache: for TensorRT's text form of the table too, with the version `tensorrt` in it.

    Raises:
        UsageError, InputMissingError, DataError, OutputError: with what to do about it; nothing was written by halves.
    """
    path, keep = Path(model), histograms_beside(output)
    if method not in METHODS or select not in (*SELECTIONS, None):
        raise UsageError(f"Expected a method of {', '.join(METHODS)} and a selection of {', '.join(SELECTIONS)}.")
    if n < MIN_PICTURES:
        raise UsageError(f"Expected at least {MIN_PICTURES} pictures, got -n {n}: fewer do not show what values come.")
    header = cache_header(tensorrt)
    outputs = [output, keep, *([cache] if cache else [])]
    check_outputs(outputs, [path, images])
    for place in outputs:  # better known before than after the work
        check_writable(place)
    deployable = read_deployable(path)
    pictures = open_pictures(images)
    chosen = _choose(pictures, n, pictures.moves if select is None else select == "diverse", shows_progress)
    if (pictures.total or MIN_PICTURES) < MIN_PICTURES:
        raise _too_few(images, len(chosen), "")
    plan = read_plan(deployable.model)
    if not plan.tensors:
        raise DataError(f"Expected convolutions to calibrate for in '{path}', but there are none.")
    observations = _go_on(keep, Observations(graph_sha256(deployable.model), plan.groups), pictures, chosen)
    resumed = len(observations.seen)
    clock = StageClock()
    network = Network(deployable.model, deployable.spec, plan.tensors)
    del deployable  # as large as all weights
    with _progress(shows_progress, len(chosen)) as line:
        tally = collect(pictures, chosen, network, observations, keep, clock, lambda: line.step(clock))
    if len(tally.used) < MIN_PICTURES:
        raise _too_few(images, len(tally.used), tally.left_out())
    table, idle = _table(observations, method)
    new = len(tally.used) - resumed
    if cache:
        with atomic_output(cache) as temporary:
            temporary.write_text(cache_text(table, header), encoding="utf-8")
    write_table(table, output)
    return CalibrationReport(table, output, keep, tally, resumed, idle, clock.mean_ms(new) if new else {})


def _choose(pictures: Pictures, n: int, diverse: bool, shows_progress: bool) -> list[int]:
    clock = StageClock()
    with _progress(shows_progress and diverse, pictures.total) as line:
        return choose(pictures, n, diverse, lambda: line.step(clock))


@contextmanager
def _progress(shown: bool, total: int | None) -> Iterator[ProgressLine]:
    line = ProgressLine(shown, total)
    try:
        yield line
    finally:
        line.close()


def _go_on(keep: Path, fresh: Observations, pictures: Pictures, chosen: list[int]) -> Observations:
    """What an earlier run left in `keep`, if it is of the same graph and of none but these pictures; else `fresh`."""
    if not keep.is_file():
        return fresh
    try:
        before = Observations.load(keep)
    except DataError:
        return fresh
    if (before.model_sha256, before.groups) != (fresh.model_sha256, fresh.groups):
        return fresh
    return before if before.seen <= {picture.sha256 for picture in pictures.read(set(chosen))} else fresh


def _too_few(images: str, usable: int, left_out: str) -> DataError:
    return DataError(
        f"Expected at least {MIN_PICTURES} different pictures in '{images}', got {usable}"
        f"{f' ({left_out})' if left_out else ''}. Add pictures of what the camera sees and type the same command again."
    )


def _table(observations: Observations, method: str) -> tuple[CalibrationTable, tuple[str, ...]]:
    ranges: dict[str, float] = {}
    idle: list[str] = []
    for group, histogram in zip(observations.groups, observations.histograms, strict=True):
        counts = histogram.freeze()
        idle += group if counts.peak == 0 else ()
        ranges.update(dict.fromkeys(group, threshold(counts, method)))
    versions = {
        "trt-blendmask": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    images = tuple(sorted(observations.seen))
    return CalibrationTable(observations.model_sha256, method, ranges, images, versions), tuple(idle)
