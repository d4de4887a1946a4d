"""Scenes rendered once into memory-mapped arrays, and training batches cut from them.

A batch is a pure function of (seed, iteration): a resumed run sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from samples.conveyor.config import Config
from samples.conveyor.losses import Batch
from trt_blendmask import synthetic

SCENE_WH = (512, 288)
MAX_INSTANCES = 128
SMALLEST = 6  # px: what a zoom leaves of a part below this is not asked for
Array = NDArray[Any]


@dataclass(frozen=True)
class Scenes:
    """images uint8 [S,H,W,3] BGR; ids uint8 [S,H,W] = 0 or 1 + instance; boxes int32 [S,128,4] xyxy; classes
    int32 [S,128], -1 in empty slots."""

    images: Array
    ids: Array
    boxes: Array
    classes: Array

    def __len__(self) -> int:
        return len(self.images)


def render_one(seed: int, frame_wh: tuple[int, int], index: int) -> tuple[Array, Array, Array, Array]:
    scene = synthetic.render_scene(seed, index, frame_wh)
    ids = np.zeros(scene.image.shape[:2], np.uint8)
    boxes, classes = np.zeros((MAX_INSTANCES, 4), np.int32), np.full(MAX_INSTANCES, -1, np.int32)
    for k, instance in enumerate(scene.instances[:MAX_INSTANCES]):
        x0, y0, x1, y1 = map(int, instance.box)
        ids[y0:y1, x0:x1][instance.mask] = k + 1
        boxes[k], classes[k] = instance.box, instance.class_id
    return scene.image, ids, boxes, classes


def open_scenes(folder: Path, seed: int, count: int) -> Scenes:
    """Opens scenes 0..count-1 of a seed; renders those that the folder lacks, on all cores."""
    w, h = SCENE_WH
    shapes = {"images": (h, w, 3), "ids": (h, w), "boxes": (MAX_INSTANCES, 4), "classes": (MAX_INSTANCES,)}
    types = {"images": np.uint8, "ids": np.uint8, "boxes": np.int32, "classes": np.int32}
    place = folder / f"seed{seed}_{count}_{w}x{h}"
    if not place.exists():
        partial_place = place.with_suffix(".partial")
        partial_place.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: np.lib.format.open_memmap(
                partial_place / f"{name}.npy", mode="w+", dtype=types[name], shape=(count, *shapes[name])
            )
            for name in shapes
        }
        print(f"rendering {count} scenes of seed {seed}", flush=True)
        with multiprocessing.Pool(os.cpu_count(), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            made = pool.imap(partial(render_one, seed, (w, h)), range(count), chunksize=8)
            for index, scene in enumerate(made):
                for name, value in zip(shapes, scene, strict=True):
                    arrays[name][index] = value
        for array in arrays.values():
            array.flush()
        partial_place.rename(place)
    return Scenes(*(np.load(place / f"{name}.npy", mmap_mode="r") for name in shapes))


def colour_jitter(image: Array, rng: np.random.Generator) -> Array:
    """Exposure, contrast, gamma and a tint per channel through one table; sometimes blur or noise."""
    x = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.8, 1.25)
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)
    table = np.clip((x - 0.5) * gain * 255 + 127.5 + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    image = cv2.LUT(np.ascontiguousarray(image), table[None])
    if rng.random() < 0.1:
        image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.8))
    if rng.random() < 0.1:
        noise = rng.normal(0, rng.uniform(2, 6), image.shape).astype(np.float32)
        image = np.clip(image.astype(np.float32) + noise, 0, 255).astype(np.uint8)
    return image


@dataclass(frozen=True)
class Sample:
    """One augmented scene: image uint8 [H,W,3], boxes float32 [I,4], classes, numbers [I]; ids, affine as in Batch."""

    image: Array
    ids: Array
    boxes: Array
    classes: Array
    numbers: Array
    affine: tuple[float, float, float, float]


def tight_box(ids: Array, number: int, window: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box of what `ids` shows of an instance inside a window; (0, 0, 0, 0) where nothing is left."""
    left, top, right, bottom = window
    part = ids[top:bottom, left:right] == number
    columns, rows = np.flatnonzero(part.any(0)), np.flatnonzero(part.any(1))
    if not len(columns):
        return 0, 0, 0, 0
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def add_parts(
    scenes: Scenes, image: Array, ids: Array, boxes: list[tuple[int, ...]], classes: list[int], rng: np.random.Generator
) -> None:
    """Pastes parts of other scenes into this one, mostly beside what is there: more to learn from each image."""
    h, w = ids.shape
    for _ in range(int(rng.integers(4, 14))):
        other = int(rng.integers(len(scenes)))
        count = int((scenes.classes[other] >= 0).sum())
        k = int(rng.integers(max(1, count)))
        x0, y0, x1, y1 = (int(v) for v in scenes.boxes[other, k])
        if count == 0 or len(classes) >= MAX_INSTANCES or x0 == 0 or y0 == 0 or x1 == w or y1 == h:
            continue
        step_x, step_y = rng.choice((-1, 1)), rng.choice((-1, 1))
        turned = y1 - y0 < w and x1 - x0 < h and rng.random() < 0.5
        mask = (scenes.ids[other, y0:y1, x0:x1] == k + 1)[::step_y, ::step_x]
        patch = scenes.images[other, y0:y1, x0:x1][::step_y, ::step_x]
        if turned:
            mask, patch = mask.T, patch.transpose(1, 0, 2)
        ph, pw = mask.shape
        x, y = int(rng.integers(0, w - pw + 1)), int(rng.integers(0, h - ph + 1))
        under = ids[y : y + ph, x : x + pw]
        if (under[mask] > 0).mean() > 0.12:
            continue
        touched = [int(n) for n in np.unique(under[mask]) if n]
        before = [int((ids == n).sum()) for n in touched]
        after = [total - int((under[mask] == n).sum()) for n, total in zip(touched, before, strict=True)]
        if any(left < 0.5 * total for left, total in zip(after, before, strict=True)):
            continue
        soft = cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0.6)[..., None]
        place = image[y : y + ph, x : x + pw]
        place[:] = (place + soft * (patch.astype(np.float32) - place)).astype(np.uint8)
        under[mask] = len(classes) + 1
        boxes.append((x, y, x + pw, y + ph))
        classes.append(int(scenes.classes[other, k]))
        for n in touched:
            bx = boxes[n - 1]
            boxes[n - 1] = tight_box(ids, n, (bx[0], bx[1], bx[2], bx[3]))


def letterbox(image: Array, cfg: Config) -> tuple[Array, tuple[int, int]]:
    """An image scaled to fit the network's input, top left, padded with the mean colour; and its (h, w) in there."""
    (h, w), (high, wide) = image.shape[:2], cfg.input_hw
    fit = min(wide / w, high / h)
    th, tw = round(h * fit), round(w * fit)
    if (th, tw) != (h, w):
        image = cv2.resize(image, (tw, th), interpolation=cv2.INTER_LINEAR)
    mean = np.round(cfg.pixel_mean).astype(np.uint8)
    padded = np.broadcast_to(mean, (high, wide, 3)).copy()
    padded[:th, :tw] = image
    return padded, (th, tw)


def augment(scenes: Scenes, index: int, rng: np.random.Generator, strong: bool, cfg: Config) -> Sample:
    """Flips and colours; where `strong`, also parts of other scenes and a zoom of up to 1.4."""
    image, ids = np.array(scenes.images[index]), np.array(scenes.ids[index])
    classes = [int(c) for c in scenes.classes[index] if c >= 0]
    boxes: list[tuple[int, ...]] = [tuple(int(v) for v in box) for box in scenes.boxes[index][: len(classes)]]
    if strong:
        add_parts(scenes, image, ids, boxes, classes, rng)
    h, w = ids.shape
    scale = rng.uniform(1.05, 1.4) if strong and rng.random() < 0.3 else 1.0
    cw, ch = round(w / scale), round(h / scale)
    x0, y0 = int(rng.integers(0, w - cw + 1)), int(rng.integers(0, h - ch + 1))
    flip_x, flip_y = rng.random() < 0.5, rng.random() < 0.5
    crop = image[y0 : y0 + ch, x0 : x0 + cw][:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    if scale > 1:
        crop = cv2.resize(crop, (w, h), interpolation=cv2.INTER_LINEAR)
    framed, (th, tw) = letterbox(colour_jitter(crop, rng), cfg)
    affine = (
        (-cw if flip_x else cw) / tw,
        float(x0 + (cw if flip_x else 0)),
        (-ch if flip_y else ch) / th,
        float(y0 + (ch if flip_y else 0)),
    )
    placed, numbers = [], []
    for k, box in enumerate(boxes):
        seen = visible_box(ids, k + 1, box, (x0, y0, x0 + cw, y0 + ch))
        xs, ys = (sorted((v - affine[i]) / affine[i - 1] for v in seen[i // 2 :: 2]) for i in (1, 3))
        if min(xs[1] - xs[0], ys[1] - ys[0]) >= SMALLEST:
            placed.append((xs[0], ys[0], xs[1], ys[1]))
            numbers.append(k + 1)
    return Sample(
        image=framed,
        ids=ids,
        boxes=np.array(placed, np.float32).reshape(-1, 4),
        classes=np.array([classes[n - 1] for n in numbers], np.int64),
        numbers=np.array(numbers, np.int64),
        affine=affine,
    )


def visible_box(
    ids: Array, number: int, box: tuple[int, ...], crop: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """The tight box of an instance inside a crop, in scene pixels; empty where less than a quarter of it is left."""
    window = (max(box[0], crop[0]), max(box[1], crop[1]), min(box[2], crop[2]), min(box[3], crop[3]))
    left, top, right, bottom = window
    if window == box:
        return window
    whole = int((ids[box[1] : box[3], box[0] : box[2]] == number).sum())
    if left >= right or top >= bottom or int((ids[top:bottom, left:right] == number).sum()) < 0.25 * whole:
        return 0, 0, 0, 0
    return tight_box(ids, number, window)


def make_batch(scenes: Scenes, cfg: Config, seed: int, iteration: int, size: int, strong: bool) -> Batch:
    """Batch `iteration` of an endless walk over shuffled scenes."""
    rng = np.random.default_rng([seed, iteration])
    chosen = []
    for place in range(iteration * size, (iteration + 1) * size):
        epoch, offset = divmod(place, len(scenes))
        chosen.append(int(np.random.default_rng([seed, 7, epoch]).permutation(len(scenes))[offset]))
    samples = [augment(scenes, index, rng, strong, cfg) for index in chosen]
    images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2)
    return Batch(
        images=images.float() - torch.tensor(cfg.pixel_mean).view(1, 3, 1, 1),
        boxes=torch.from_numpy(np.concatenate([s.boxes for s in samples])),
        classes=torch.from_numpy(np.concatenate([s.classes for s in samples])),
        owner=torch.from_numpy(np.repeat(np.arange(size), [len(s.boxes) for s in samples])),
        number=torch.from_numpy(np.concatenate([s.numbers for s in samples])),
        ids=torch.from_numpy(np.stack([s.ids for s in samples])),
        affine=torch.tensor([s.affine for s in samples]),
    )


def batches(scenes: Scenes, cfg: Config, seed: int, span: range, size: int, strong_until: int) -> Iterator[Batch]:
    """Batches of the iterations in `span`, made ahead by one thread."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=4)

    def work() -> None:
        try:
            for iteration in span:
                ready.put(make_batch(scenes, cfg, seed, iteration, size, iteration < strong_until))
        except BaseException as error:  # shown by the training thread
            ready.put(error)

    threading.Thread(target=work, daemon=True).start()
    for _ in span:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item
