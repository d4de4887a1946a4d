"""Correctness before speed: what the models find in the same pictures, against the first of them."""

from __future__ import annotations

from collections.abc import Sequence

from trt_blendmask.agreement import SCORE
from trt_blendmask.compare import renaming
from trt_blendmask.compare.measure import Measure
from trt_blendmask.compare.stages import Seen
from trt_blendmask.errors import DataError
from trt_blendmask.paste import visible
from trt_blendmask.runtime.model import Model
from trt_blendmask.structures import U8

# A model that agrees less with the first finds other things, and how fast it does so says nothing. A blend that
# overflows leaves the boxes as they are, so the masks have a bound of their own.
_LEAST = {"f1": ("F1", 0.9), "mask_iou": ("mask IoU", 0.8)}


class Reference:
    """The first model, and what it finds in `images`."""

    def __init__(self, model: Model, images: Sequence[U8]) -> None:
        """Raises: as `model` of an image."""
        self._model, self._images = model, images
        self._seen = [_seen(model, image) for image in images]

    def agreement(self, other: Model) -> dict[str, float] | str:
        """How far `other` agrees with it, see `ModelProfile.agreement`, or why that cannot be said.

        Raises:
            as `other` of an image.
        """
        measure, names = Measure(SCORE), self._model.spec.class_names
        try:
            rename = renaming(names, other.spec.class_names, self._model.path, other.path)
        except DataError as error:
            return str(error).rstrip(".")
        for number, (image, seen) in enumerate(zip(self._images, self._seen, strict=True)):
            measure.add(str(number), image, seen, rename(_seen(other, image)))
        found = measure.agreement()
        return {
            "pictures": float(measure.pictures),
            "objects": float(found.reference_count),
            "f1": found.f1,
            "box_iou": found.box_iou,
            "mask_iou": found.mask_iou,
            "boundary_f": measure.boundary_f(),
        }


def _seen(model: Model, image: U8) -> Seen:
    """Without what no pixel of the picture shows."""
    found = model(image)
    return Seen(found.keep(visible(found)), None, None)


def fault(agreement: dict[str, float], label: str) -> str:
    """What is wrong with a model that agrees so far with the first, `label`; "" where nothing is."""
    wrong = (
        f"its {name} against {label} is {agreement[key]:.3f}, below {least:g}"
        for key, (name, least) in _LEAST.items()
        if agreement[key] < least
    )
    return next(wrong, "")
