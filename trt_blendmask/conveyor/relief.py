"""What a part's shape is made of: sample grid, relief, and the profiles and outlines that shapes share."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
METALS = ("steel", "bright", "zinc", "yellow_zinc", "brass", "black_oxide")


@dataclass(frozen=True)
class Grid:
    """Sample points: local coordinates ``u``, ``v`` [h,w], ``q`` pixels per unit, ``long_px`` at 512 wide."""

    u: Array
    v: Array
    q: float
    long_px: float


@dataclass(frozen=True)
class Relief:
    """One part in relief, seen from above.

    ``distance`` < 0 inside; ``height`` above the belt; both [h,w] in units of the long side. ``materials``
    by ``region`` index [h,w] uint8 (None: all the first). ``brush``: "ring", "u", "v" or "". ``wall``: the
    thickness that shows as a side wall when the part is seen at a slant (0 for round stock).
    """

    distance: Array
    height: Array
    materials: tuple[str, ...]
    region: npt.NDArray[np.uint8] | None = None
    brush: str = ""
    wall: float = 0.0
    thickness: float = 0.1


def pick(rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    """One of the names, drawn by weight."""
    cumulative = np.cumsum(weights) / sum(weights)
    return names[int(np.searchsorted(cumulative, rng.random()))]


def metal_of(rng: np.random.Generator) -> str:
    """A material of METALS, the common ones more often."""
    return pick(rng, METALS, (0.28, 0.14, 0.24, 0.1, 0.13, 0.11))


def edge(depth: Array, width: float) -> Array:
    """Rounded edge: 0 at the outline, 1 from ``width`` inwards, a quarter circle between."""
    t = 1 - np.clip(depth / np.float32(width), 0, 1)
    return np.asarray(np.sqrt(np.maximum(1 - t * t, 0)), np.float32)


def circle(r2: float, x: Array) -> Array:
    """Height of a circle of squared radius ``r2`` above its diameter, 0 outside."""
    return np.asarray(np.sqrt(np.maximum(r2 - x * x, 0)), np.float32)


def step(low: float, high: float, x: Array) -> Array:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def box(u: Array, v: Array, half_u: float, half_v: float, corner: float) -> Array:
    """Signed distance to a rectangle about the origin with rounded corners."""
    a = np.abs(u) - np.float32(half_u - corner)
    b = np.abs(v) - np.float32(half_v - corner)
    outside = cv2.magnitude(np.maximum(a, 0), np.maximum(b, 0))
    return np.asarray(outside + np.minimum(np.maximum(a, b), 0) - np.float32(corner), np.float32)


def depth_inside(distance: Array, q: float) -> Array:
    """Exact depth inside the outline, in units, from a distance transform."""
    inside = (distance < 0).astype(np.uint8)
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0.0,))
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.asarray(cv2.GaussianBlur(depth, (0, 0), 0.8) * np.float32(1 / q), np.float32)
