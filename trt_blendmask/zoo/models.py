"""The table of AdelaiDet's published BlendMask models (its configs/BlendMask/README.md and MODEL_ZOO.md)."""

from __future__ import annotations

from dataclasses import dataclass

from trt_blendmask.export.presets import PRESETS, find_preset

LICENCE = (
    "These weights are AdelaiDet's and for non-commercial use only; for anything else ask its authors "
    "(github.com/aim-uofa/AdelaiDet, LICENSE). They are no part of trt-blendmask."
)
WEIGHTS = "https://huggingface.co/ZjuCv/AdelaiDet/resolve/main/"
_LOST = "weights were on CloudStor, which closed; no other place is known"
_CONFIG_ONLY = "only its config was published"
_SAME_FILE = (
    "linked to the file of {}; which of the two that is, is not said, but the instance part is read from either"
)


@dataclass(frozen=True)
class PublishedModel:
    """One row; the name is also that of its preset.

    Attributes:
        box_ap, mask_ap: COCO val2017, percent, as its authors give them (Person: on PIC); None: not given.
        file: of `WEIGHTS`; "": no place is known. note: what else there is to say.
        year: when the weights, or else the config, were published.
    """

    name: str
    box_ap: float | None
    mask_ap: float | None
    file: str
    note: str = ""
    year: int = 2020

    @property
    def config(self) -> str:
        """The YAML, relative to AdelaiDet's configs/BlendMask."""
        for folder in ("Panoptic", "Person"):
            if self.name.startswith(f"{folder}_"):
                return f"{folder}/{self.name.removeprefix(f'{folder}_')}.yaml"
        return f"{self.name}.yaml"

    @property
    def test_size(self) -> str:
        """Shortest and longest edge, in pixels, that it was tested at."""
        preset = PRESETS[self.name]
        return f"{preset['INPUT.MIN_SIZE_TEST']}/{preset['INPUT.MAX_SIZE_TEST']}"


def _instance(name: str, box_ap: float, mask_ap: float) -> PublishedModel:
    return PublishedModel(name, box_ap, mask_ap, f"{name}.pth")


def _panoptic(name: str, quality: float) -> PublishedModel:
    return PublishedModel(f"Panoptic_{name}", None, None, f"{name}.pth", f"PQ {quality}; {_SAME_FILE.format(name)}")


MODELS: tuple[PublishedModel, ...] = (
    _instance("R_50_1x", 39.9, 35.8),
    _instance("R_50_3x", 42.7, 37.8),
    _instance("R_101_3x", 44.8, 39.5),
    _instance("R_101_dcni3_5x", 46.8, 41.1),
    PublishedModel("550_R_50_1x", None, None, "", _CONFIG_ONLY),
    _instance("550_R_50_3x", 38.7, 34.5),
    PublishedModel("550_R_50_dcni3_5x", None, None, "", _CONFIG_ONLY),
    _instance("RT_R_50_4x_syncbn_shtw", 39.3, 35.1),
    _instance("RT_R_50_4x_bn-head_syncbn_shtw", 39.3, 35.1),
    _instance("DLA_34_syncbn_4x", 40.8, 36.3),
    PublishedModel("Person_R_50_1x", 70.6, 66.7, "", f"AP on PIC, not COCO; {_LOST}"),
    _panoptic("R_50_3x", 42.5),
    _panoptic("R_101_3x", 44.3),
    _panoptic("R_101_dcni3_5x", 46.0),
)


def find_model(name: str) -> PublishedModel:
    """The row of that name, spelt as `find_preset` takes it.

    Raises:
        UsageError: there is none; the nearest are named.
    """
    known = find_preset(name)
    return next(model for model in MODELS if model.name == known)


def table() -> list[str]:
    """The rows as lines of text, with a heading."""
    notes = sorted({model.note for model in MODELS if model.note}, key=[m.note for m in MODELS].index)
    rows: list[tuple[str, ...]] = [("NAME (= --preset)", "TEST SIZE", "BOX AP", "MASK AP", "YEAR", "CONFIG", "WEIGHTS")]
    for model in MODELS:
        where = model.file or "-"
        mark = f" [{notes.index(model.note) + 1}]" if model.note else ""
        aps = (f"{ap:.1f}" if ap is not None else "-" for ap in (model.box_ap, model.mask_ap))
        rows.append((model.name, model.test_size, *aps, str(model.year), model.config, where + mark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    footnotes = [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    where = f"Weights at {WEIGHTS}, as AdelaiDet's README of March 2024 says."
    return [*lines, "", where, *footnotes, LICENCE]
