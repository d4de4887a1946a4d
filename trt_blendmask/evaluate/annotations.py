"""COCO annotations, read and checked before any network runs."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from trt_blendmask.coco import decompress_counts
from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.evaluate.class_names import places
from trt_blendmask.files import existing_file, is_folder
from trt_blendmask.structures import F64, U8

if TYPE_CHECKING:
    from pycocotools.coco import COCO

_HINT = "Give a COCO instances file, as instances_val2017.json."
_FAR = 1e6  # pixels; a polygon costs memory by its length
_LARGE = 1 << 53  # whole numbers from which on a float, as pycocotools keeps them, is no longer exact
_KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "segmentation"),
}


@dataclass(frozen=True)
class Picture:
    """One annotated picture: its COCO id, its file and its size."""

    image_id: int
    file: Path
    wh: tuple[int, int]


@dataclass(frozen=True)
class Annotations:
    """What is to be found, and in which pictures.

    Attributes:
        coco: pycocotools' index. path: where it came from.
        pictures: that are there, by ascending id. absent: how many of those wanted are not.
        strays: annotations that were left out, as pycocotools does, for the file does not list their pictures.
    """

    coco: COCO
    path: Path
    pictures: tuple[Picture, ...]
    absent: int
    strays: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the categories, by ascending id."""
        return tuple(category["name"] for category in self.coco.loadCats(self.category_ids))

    @property
    def category_ids(self) -> list[int]:
        return sorted(self.coco.getCatIds())

    def of(self, image_id: int) -> list[dict[str, Any]]:
        """The objects of one picture, crowds among them."""
        return list(self.coco.loadAnns(self.coco.getAnnIds(imgIds=[image_id])))

    def to_find(self, image_ids: Iterable[int]) -> set[int]:
        """The categories of the objects in these pictures, crowds aside, which need not be found."""
        return {row["category_id"] for image_id in image_ids for row in self.of(image_id) if not row["iscrowd"]}

    def mask(self, annotation: dict[str, Any]) -> U8:
        """uint8 [H, W], 1 where the object is."""
        return np.asarray(self.coco.annToMask(annotation), dtype=np.uint8)

    def categories_of(self, names: Sequence[str], model: Path) -> list[int | None]:
        """The category id of each of a model's classes; None for a class that the annotations do not have.

        Raises:
            DataError: they share no class at all.
        """
        ids, found = self.category_ids, places(names, self.class_names)
        if all(place is None for place in found):
            theirs = ", ".join(map(repr, self.class_names[:3]))
            raise DataError(
                f"Expected annotations of the model's classes, but '{self.path}' has {theirs} ... and '{model}' has "
                f"{', '.join(map(repr, names[:3]))} ... Give the annotations of what the model was trained on."
            )
        return [None if place is None else ids[place] for place in found]


def read_annotations(path: Path, images: Path, most: int | None = None) -> Annotations:
    """Read a COCO instances file; of its pictures the first `most` by id.

    A picture is looked for in the folder `images` under its whole `file_name`, then under the last part of that, if no
    other picture has the same.

    Raises:
        UsageError: pycocotools is not installed.
        InputMissingError: no such file or folder, or none of the pictures is in it.
        DataError: not a COCO instances file, or one that contradicts itself.
    """
    coco_class = _pycocotools()
    file = existing_file(path, "COCO annotations", _HINT)
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected COCO annotations, but '{path}' is no JSON, or cut short. {_HINT}") from error
    _check(document, path)
    if not is_folder(images):
        raise InputMissingError(
            f"Expected a folder of pictures at '{images}', but there is none. Name it: --images DIR"
        )
    listed = {image["id"] for image in document["images"]}
    kept = [row for row in document["annotations"] if row["image_id"] in listed]
    strays = len(document["annotations"]) - len(kept)
    coco = coco_class()
    coco.dataset = document | {"annotations": kept}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        coco.createIndex()
    wanted = sorted(document["images"], key=lambda image: int(image["id"]))[:most]
    ends = Counter(_end(image["file_name"]) for image in document["images"])
    found = [(image, _find(images, image["file_name"], ends)) for image in wanted]
    pictures = tuple(
        Picture(image["id"], place, (image["width"], image["height"])) for image, place in found if place is not None
    )
    if not pictures:
        raise InputMissingError(
            f"Expected the pictures of '{path}' in '{images}', but none of {len(wanted)} is there "
            f"('{wanted[0]['file_name']}' ...): annotations and pictures do not belong "
            "together. Name the folder that has them: --images DIR"
        )
    annotations = Annotations(coco, path, pictures, len(wanted) - len(pictures), strays)
    _check_masks(annotations)
    return annotations


def _pycocotools() -> Any:
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise UsageError("eval needs the package pycocotools: pip install 'trt-blendmask[eval]'.") from error
    return COCO


def _check(document: Any, path: Path) -> None:
    def wrong(what: str) -> DataError:
        return DataError(f"Expected COCO annotations, but in '{path}' {what}. {_HINT}")

    if not isinstance(document, dict):
        raise wrong("there is no object at the top")
    for part, keys in _KEYS.items():
        rows = document.get(part)
        if not isinstance(rows, list) or (not rows and part != "annotations"):
            raise wrong(f"there are no '{part}'")
        for row in rows:
            lacks = [key for key in keys if not isinstance(row, dict) or key not in row]
            if lacks:
                raise wrong(f"one of '{part}' has no '{lacks[0]}'")
            if not isinstance(row["id"], int) or abs(row["id"]) > _LARGE:
                raise wrong(f"one of '{part}' has no whole number as its id, but {str(row['id'])[:40]!r}")
        if len({row["id"] for row in rows}) < len(rows):
            raise wrong(f"two of '{part}' have the same id")
    for image in document["images"]:
        sizes = (image["width"], image["height"])
        if not isinstance(image["file_name"], str) or not all(isinstance(s, int) and 0 < s < _FAR for s in sizes):
            raise wrong(f"picture {image['id']} has no file name or no size")
    if not all(isinstance(category["name"], str) for category in document["categories"]):
        raise wrong("a category's name is no text")
    if len({category["name"] for category in document["categories"]}) < len(document["categories"]):
        raise wrong("two categories have the same name")
    _check_objects(document, wrong)


def _check_objects(document: dict[str, Any], wrong: Any) -> None:
    categories = {category["id"] for category in document["categories"]}
    for row in document["annotations"]:
        row.setdefault("iscrowd", 0)
        numbers = [*row["bbox"], row["area"]] if isinstance(row["bbox"], list) else []
        if len(numbers) != 5 or not all(isinstance(n, (int, float)) and abs(n) < _LARGE for n in numbers):
            raise wrong(f"annotation {row['id']} has no box of four numbers, or no area")
        if row["iscrowd"] not in (0, 1):
            raise wrong(f"annotation {row['id']} has iscrowd {str(row['iscrowd'])[:20]!r}")
        if not isinstance(row["image_id"], int):
            raise wrong(
                f"annotation {row['id']} has no whole number as its image_id, but {str(row['image_id'])[:40]!r}"
            )
        if not isinstance(row["category_id"], int) or row["category_id"] not in categories:
            raise wrong(f"annotation {row['id']} is of an unknown category_id, {str(row['category_id'])[:40]!r}")


def _check_masks(annotations: Annotations) -> None:
    for picture in annotations.pictures:
        width, height = picture.wh
        for row in annotations.of(picture.image_id):
            try:
                size = _size_of(annotations.coco, row)
            except Exception as error:  # pycocotools raises several kinds
                raise DataError(
                    f"Expected a mask, but annotation {row['id']} of '{annotations.path}' has none. {_HINT}"
                ) from error
            if list(size) != [height, width]:
                raise DataError(
                    f"Expected masks of {height} x {width}, as the picture has, but that of annotation {row['id']} in "
                    f"'{annotations.path}' is of {' x '.join(map(str, size))}. {_HINT}"
                )


def _size_of(coco: COCO, row: dict[str, Any]) -> list[int]:
    """Height and width of a mask; pycocotools reads run lengths without a look at their sum, and beyond its memory.

    Raises:
        ValueError, and others: there is no mask.
    """
    segmentation = row["segmentation"]
    if not isinstance(segmentation, dict):
        polygons = [np.array(polygon, dtype=np.float64) for polygon in segmentation]
        if not polygons or not all(p.size >= 6 and _length(p) < _FAR for p in polygons):
            raise ValueError("polygons have three points or more, near the picture")
        return list(coco.annToRLE(row)["size"])
    size, counts = [int(side) for side in segmentation["size"]], segmentation["counts"]
    runs = decompress_counts(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if len(size) != 2 or min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError("the runs do not fill the picture")
    return size


def _length(polygon: F64) -> float:
    """Pixels from the origin along x, y, x, y, ... and back to the first point; NaN where there is one."""
    points = polygon[: polygon.size // 2 * 2].reshape(-1, 2)
    return float(np.abs(points[0]).sum() + np.abs(points - np.roll(points, 1, axis=0)).sum())


def _find(images: Path, name: str, ends: Counter[str]) -> Path | None:
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or with a null byte
        end = _end(name)
        places = [images / name, *([images / end] if ends[end] == 1 else [])]
        return next((place for place in places if place.is_file()), None)
    return None


def _end(name: str) -> str:
    """The last part of a path of any system."""
    return PureWindowsPath(name).name
