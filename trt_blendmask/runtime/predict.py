"""`predict`: pictures through the model, into overlays and one file of COCO results."""

from __future__ import annotations

import json as json_module
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from trt_blendmask.errors import UsageError
from trt_blendmask.files import atomic_output, check_outputs, existing_file
from trt_blendmask.layout import counted
from trt_blendmask.runtime.choice import GpuOptions, model_files
from trt_blendmask.runtime.images import read_image
from trt_blendmask.runtime.model import load
from trt_blendmask.runtime.overlay import check_choices, draw, outlines


@dataclass(frozen=True)
class PredictReport:
    """What a prediction did: pictures done, instances found, seconds, the overlays, the results file, and how."""

    images: int
    detections: int
    seconds: float
    overlays: tuple[Path, ...]
    results: Path
    how: str

    def summary(self) -> str:
        """One line for a person."""
        where = self.overlays[0] if self.images == 1 else self.overlays[0].parent
        found = f"{counted(self.images, 'picture')} in {self.seconds:.1f} s, {counted(self.detections, 'detection')}"
        return f"{found}: wrote {where} and {self.results}"


def predict(
    model: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    output: Path,
    json: Path | None = None,
    score: float | None = None,
    paste: str = "exact",
    colour_by: str = "class",
    device: str = "auto",
    gpu: GpuOptions | None = None,
) -> PredictReport:
    """Find the instances in each picture of `images`.

    Args:
        model: a deployable ONNX or an engine. device, gpu: see `trt_blendmask.load`.
        output: folder for the overlays, PNG files named after the pictures.
        json: COCO results of all pictures, in original picture pixels; default `output`/results.json.
        score: leave out what scores less.
        paste: "exact" or "reference", see `trt_blendmask.paste`. colour_by: "class" or "instance".

    All pictures are checked to exist before any work. One that cannot be decoded ends the run: overlays of the
    pictures before it stay (each is whole), the results file is not written.

    Raises:
        UsageError, InputMissingError, DataError: options, files or their contents that do not do.
        OutputError: a file could not be written.
    """
    check_choices(paste, colour_by)
    files = [existing_file(image, "a picture", "Give a PNG or JPEG file.") for image in images]
    if not files:
        raise UsageError("Expected at least one picture, got none.")
    results_path = output / "results.json" if json is None else json
    overlays = overlay_names(files, output)
    check_outputs([results_path, *overlays], [*model_files(model), *files])
    results: list[dict[str, Any]] = []
    with load(model, device, gpu=gpu) as loaded, atomic_output(results_path) as temporary:
        began = time.perf_counter()
        for file, overlay in zip(files, overlays, strict=True):
            image = read_image(file)
            found = loaded(image)
            found = found if score is None else found.above(score)
            results += [{"file_name": file.name, **result} for result in found.to_coco(paste)]
            draw(image, found, outlines(found, paste), colour_by)
            with atomic_output(overlay) as path:
                path.write_bytes(cv2.imencode(".png", image)[1].tobytes())  # cv2.imwrite wants UTF-8 names
        text = json_module.dumps(results, ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # \udc80: a name that is not UTF-8
        seconds = time.perf_counter() - began
    return PredictReport(len(files), len(results), seconds, tuple(overlays), results_path, loaded.how)


def overlay_names(files: Sequence[Path], output: Path) -> list[Path]:
    """A PNG in `output` for each picture: its own name, with _2, _3, ... where that is taken or is a picture itself."""
    taken = {file.resolve() for file in files}
    names: list[Path] = []
    for file in files:
        name, number = output / f"{file.stem}.png", 1
        while name.resolve() in taken:
            number += 1
            name = output / f"{file.stem}_{number}.png"
        taken.add(name.resolve())
        names.append(name)
    return names
