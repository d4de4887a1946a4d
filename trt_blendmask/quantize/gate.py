"""The last check of a quantised model: on pictures it has not seen, does it still find what the float model finds?"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from trt_blendmask.agreement import SCORE, Agreement, compare_detections
from trt_blendmask.calibrate.pictures import Picture, choose, open_pictures
from trt_blendmask.errors import DataError
from trt_blendmask.files import atomic_output
from trt_blendmask.runtime.model import Model, load
from trt_blendmask.runtime.overlay import draw
from trt_blendmask.runtime.panels import beside
from trt_blendmask.structures import U8, Detections

LEAST_F1 = 0.97
LEAST_MASK_IOU = 0.97
HELD_OUT = 64  # pictures by default
NOT_COMPARED = (
    "Not compared with the float model, as no pictures are held out for it: give some that calibration has not seen, "
    "with --held-out DIR|LIST|VIDEO."
)
BELOW = (
    f"That is below what a file must reach (F1 {LEAST_F1}, mask IoU {LEAST_MASK_IOU}): --sensitivity F.html shows "
    "which blocks harm, --max-drop 0.3 lets the cheapest of them stay FP16."
)


@dataclass(frozen=True)
class Verdict:
    """How far the quantised model agrees with the float one.

    Attributes:
        pictures: how many were compared. worst: name of the picture on which they agree least.
        side_by_side: where that picture was saved with both overlays; None where the gate was passed.
    """

    agreement: Agreement
    pictures: int
    worst: str
    side_by_side: Path | None = None

    @property
    def passed(self) -> bool:
        found = self.agreement.reference_count > 0
        return found and self.agreement.f1 >= LEAST_F1 and self.agreement.mask_iou >= LEAST_MASK_IOU

    def sentence(self) -> str:
        text = f"Against the float model on {self.pictures} held-out pictures: {self.agreement.sentence()}"
        return text if self.side_by_side is None else f"{text}; the worst, {self.worst}: {self.side_by_side}"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pictures, and the picture on which they agree least with what each found."""

    agreement: Agreement
    pictures: int
    worst: Picture
    found: tuple[Detections, Detections]


def held_out(text: str, count: int, seen: Collection[str] = ()) -> Iterator[Picture]:
    """At most `count` pictures of a folder, list or video, spread evenly; those with a hash in `seen` are passed over.

    Raises:
        DataError: none is left. Others as `trt_blendmask.calibrate.pictures.open_pictures`.
    """
    pictures = open_pictures(text)
    used = broken = left = 0
    for picture in pictures.read(choose(pictures, count, False, lambda: None)):
        if picture.image is None:
            broken += 1
        elif picture.sha256 in seen:
            used += 1
        else:
            left += 1
            yield picture
    if not left:
        raise DataError(
            f"Expected held-out pictures in '{text}', but {used} were calibrated on and {broken} cannot be read. Name "
            "others: --held-out DIR|LIST|VIDEO"
        )


def compare_models(
    reference: Model, other: Model, pictures: Iterable[Picture], on_picture: Callable[[], None] = lambda: None
) -> Comparison:
    """Run both models on every picture; only the worst is kept in memory.

    Raises:
        DataError: there are no pictures.
    """
    pairs: list[tuple[Detections, Detections]] = []
    least, worst = 2.0, None
    for picture in pictures:
        assert picture.image is not None
        pair = (reference(picture.image).above(SCORE), other(picture.image).above(SCORE))
        quality = compare_detections([pair[0]], [pair[1]]).quality
        if quality < least:
            least, worst = quality, (picture, pair)
        pairs.append(pair)
        on_picture()
    if worst is None:
        raise DataError("Expected held-out pictures to compare the models on, got none. Name a folder that has some.")
    return Comparison(compare_detections(*map(list, zip(*pairs, strict=True))), len(pairs), *worst)


def judge(
    reference: Path,
    quantised: Path,
    pictures: Iterable[Picture],
    output: Path,
    on_picture: Callable[[], None] = lambda: None,
) -> Verdict:
    """Compare `quantised`, a file not yet published, with the float model `reference`.

    Below `LEAST_F1` or `LEAST_MASK_IOU` the worst picture is saved beside `output`, the file that is to be, as
    OUTPUT.worst.png.

    Raises:
        DataError: there are no pictures.
    """
    with load(reference) as float_model, load(quantised) as other:
        compared = compare_models(float_model, other, pictures, on_picture)
    assert compared.worst.image is not None
    verdict = Verdict(compared.agreement, compared.pictures, compared.worst.name)
    if verdict.passed:
        return verdict
    picture = worst_beside(output)
    with atomic_output(picture) as temporary:
        encoded = cv2.imencode(".png", side_by_side(compared.worst.image, compared.found))[1]
        temporary.write_bytes(encoded.tobytes())
    return replace(verdict, side_by_side=picture)


def require(verdict: Verdict, output: Path) -> None:
    """Let only what passed become the file `output`.

    Raises:
        DataError: below a bound, or the float model finds nothing in the pictures.
    """
    if not verdict.passed:
        raise DataError(_refusal(verdict, output))


def worst_beside(output: Path) -> Path:
    """Where the worst picture goes if the gate is not passed."""
    return output.with_name(f"{output.stem}.worst.png")


def side_by_side(image: U8, found: Collection[Detections]) -> U8:
    """What the float and the quantised model found in one picture: two overlays, uint8 BGR, left and right."""
    panels = []
    for title, detections in zip(("float", "quantised"), found, strict=True):
        panel = image.copy()
        draw(panel, detections)
        panels.append((f"{title}: {len(detections)} objects", panel))
    return beside(panels)


def _refusal(verdict: Verdict, output: Path) -> str:
    seen, picture = verdict.agreement, shlex.quote(str(verdict.side_by_side))
    if not seen.reference_count:
        return (
            f"Expected held-out pictures in which the float model finds something, got {verdict.pictures} in which it "
            f"finds nothing above score {SCORE}. Give pictures of what it was trained on, or pass --force."
        )
    sizes = f" ({', '.join(f'{size} {iou:.3f}' for size, iou in seen.by_size.items())} objects)" if seen.matched else ""
    return (
        f"Expected F1 >= {LEAST_F1} and mask IoU >= {LEAST_MASK_IOU} against the float model on {verdict.pictures} "
        f"held-out pictures, got F1 {seen.f1:.3f} and mask IoU {seen.mask_iou:.3f}{sizes}, so "
        f"'{output}' was not written. Look at {picture}, then let the blocks that harm most stay FP16: add "
        "--max-drop 0.3, or pass --force."
    )
