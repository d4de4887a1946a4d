"""Correctness before speed: what the models find in the same pictures, against the first of them."""

from __future__ import annotations

from collections.abc import Sequence

from trt_blendmask.compare import renaming
from trt_blendmask.compare.measure import Measure
from trt_blendmask.compare.stages import Seen
from trt_blendmask.errors import DataError
from trt_blendmask.quantize.agreement import SCORE
from trt_blendmask.runtime.model import Model
from trt_blendmask.structures import U8

LEAST_F1 = 0.9  # a model that agrees less with the first finds other things, and how fast it does so says nothing


def agree(reference: Model, other: Model, images: Sequence[U8]) -> dict[str, float] | str:
    """How far `other` agrees with `reference`, see `ModelProfile.agreement`, or why that cannot be said."""
    measure, names = Measure(SCORE), reference.spec.class_names
    try:
        rename = renaming(names, other.spec.class_names, reference.path, other.path)
        for number, image in enumerate(images):
            measure.add(str(number), image, Seen(reference(image), None, None), rename(Seen(other(image), None, None)))
    except DataError as error:
        return str(error)
    found = measure.agreement()
    return {
        "pictures": float(measure.pictures),
        "objects": float(found.reference_count),
        "f1": found.f1,
        "box_iou": found.box_iou,
        "mask_iou": found.mask_iou,
        "boundary_f": measure.boundary_f(),
    }
