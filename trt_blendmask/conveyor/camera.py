"""From parts on a belt to a camera picture: laying down, light, motion blur, noise, tone (and exact masks)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.conveyor.parts import Sprite
from trt_blendmask.conveyor.shading import times

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placed:
    """A sprite with its centre at (x, y) in frame pixels; later ones lie on earlier ones."""

    sprite: Sprite
    class_id: int
    x: float
    y: float


@dataclass(frozen=True)
class Camera:
    """Exposure and sensor. ``light`` [h,w,3] multiplies the frame; ``blur`` = motion in pixels (x, y)."""

    light: Array
    blur: tuple[float, float]
    exposure: float
    gamma: float
    read_noise: float
    shot_noise: float
    soften: float


def make_camera(rng: np.random.Generator, frame_wh: tuple[int, int]) -> Camera:
    w, h = frame_wh
    zoom = w / 512
    x = np.linspace(-1, 1, w, dtype=np.float32)[None]
    y = np.linspace(-h / w, h / w, h, dtype=np.float32)[:, None]
    light = 1 + np.float32(rng.uniform(-0.22, 0.22)) * x + np.float32(rng.uniform(-0.25, 0.25)) * y
    cx, cy = rng.uniform(-0.7, 0.7, 2)
    spot = np.exp(-((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2) / np.float32(0.5))
    light = light + np.float32(rng.uniform(0.0, 0.45)) * spot
    light = light * (1 - np.float32(rng.uniform(0.05, 0.3)) * (x * x + y * y))
    if rng.random() < 0.12:  # the soft shadow of something beside the belt
        edge = np.float32(rng.uniform(-0.8, 0.8))
        slope = np.float32(rng.uniform(-0.8, 0.8))
        light = light * (1 - np.float32(rng.uniform(0.15, 0.4)) / (1 + np.exp((x + slope * y - edge) * 14)))
    warm = rng.normal(0, 0.055)
    tint = np.array([1 - warm, 1 + rng.normal(0, 0.012), 1 + warm], np.float32)
    fast = rng.random() < 0.2
    length = float(rng.uniform(2.0, 8.0) if fast else rng.exponential(0.7)) * zoom
    return Camera(
        light=np.asarray(light[..., None] * tint, np.float32),
        blur=(length, float(rng.normal(0, 0.08)) * length),
        exposure=float(np.exp(rng.normal(0.0, 0.22))),
        gamma=float(rng.uniform(2.0, 2.4)),
        read_noise=float(rng.uniform(0.6, 2.6)),
        shot_noise=float(rng.uniform(0.2, 1.3)),
        soften=float(rng.uniform(0.25, 0.65)) * (0.5 + 0.5 * zoom),
    )


def lay(frame: Array, placed: Iterable[Placed]) -> list[tuple[Array, tuple[int, int]]]:
    """Paint parts and their shadows over ``frame`` in order; return each one's whole coverage and corner."""
    covers = []
    for item in placed:
        layers, shadow, corner, shadow_corner = item.sprite.at(item.x, item.y)
        target, source = overlap(frame.shape, shadow.shape, shadow_corner)
        if shadow[source].size:
            frame[target] = times(frame[target], 1 - shadow[source])
        target, source = overlap(frame.shape, layers.shape, corner)
        if layers[source].size:
            patch = layers[source]
            frame[target] = times(frame[target], 1 - patch[..., 3]) + patch[..., :3]
        covers.append((np.ascontiguousarray(layers[..., 3]), corner))
    return covers


def overlap(
    frame: tuple[int, ...], patch: tuple[int, ...], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the frame and of a patch whose top-left (x, y) is ``corner``, where the two meet."""
    x0, y0 = max(corner[0], 0), max(corner[1], 0)
    x1 = max(x0, min(corner[0] + patch[1], frame[1]))
    y1 = max(y0, min(corner[1] + patch[0], frame[0]))
    x, y = corner
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def visible(covers: list[tuple[Array, tuple[int, int]]], frame_hw: tuple[int, int]) -> list[npt.NDArray[np.bool_]]:
    """Which pixels of each cover are seen: at least half of the pixel, in the frame, and disjoint.

    Each mask has the cover's own shape. What lies above takes its share of a pixel first.
    """
    free = np.ones(frame_hw, np.float32)
    taken = np.zeros(frame_hw, np.bool_)
    masks: list[npt.NDArray[np.bool_]] = []
    for cover, corner in reversed(covers):
        target, source = overlap(frame_hw, cover.shape, corner)
        mask = np.zeros(cover.shape, np.bool_)
        seen = (cover[source] * free[target] >= 0.5) & ~taken[target]
        mask[source] = seen
        taken[target] |= seen
        free[target] *= 1 - cover[source]
        masks.append(mask)
    return masks[::-1]


def expose(frame: Array, camera: Camera, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Linear light to the picture that the sensor gives, uint8 BGR."""
    out = frame * (camera.light * np.float32(camera.exposure))
    length = float(np.hypot(*camera.blur))
    if length > 0.7:
        out = cv2.filter2D(out, -1, _streak(camera.blur), borderType=cv2.BORDER_REFLECT)
    out = cv2.GaussianBlur(out, (0, 0), max(camera.soften, 0.2))
    out = 1 - np.exp(-1.7 * out)  # a shoulder instead of clipping
    out = np.asarray(cv2.pow(out, 1 / camera.gamma) * 255, np.float32)
    noise = rng.standard_normal(out.shape[:2], dtype=np.float32)
    chroma = rng.integers(-128, 128, out.shape, dtype=np.int16).astype(np.float32) * np.float32(1 / 74)
    spread = np.float32(camera.read_noise) + np.float32(camera.shot_noise / 16) * np.sqrt(out)
    out += spread * (0.75 * noise[..., None] + 0.45 * chroma)
    return np.asarray(np.clip(out + 0.5, 0, 255), np.uint8)


def _streak(motion: tuple[float, float]) -> Array:
    """A line kernel of the given motion, symmetric about its centre, so that masks keep their place."""
    length = float(np.hypot(*motion))
    half = int(np.ceil(length / 2)) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    cos, sin = motion[0] / length, motion[1] / length
    along, across = np.abs(x * cos + y * sin), np.abs(y * cos - x * sin)
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)
