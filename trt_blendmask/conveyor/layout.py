"""Where parts lie: their sizes, and still heaps in which no part is hidden too far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trt_blendmask.conveyor.camera import Placed, overlap
from trt_blendmask.conveyor.parts import Part, Sprite, render_part
from trt_blendmask.conveyor.shading import Rig
from trt_blendmask.conveyor.shapes import SHAPES

# A part is annotated only if this share of it, and so many pixels, are visible.
MIN_VISIBLE_SHARE = 0.15
MIN_VISIBLE_PIXELS = 24
# Long side of a part in pixels of a 512-wide frame, at these quantiles.
_SIZE_QUANTILES = (0.0, 0.04, 0.16, 0.58, 1.0)
_SIZE_PIXELS = (12.0, 24.0, 48.0, 96.0, 150.0)


def _normal_quantile(z: float) -> float:
    """The share of the normal distribution below z (logistic approximation, within 0.01 %)."""
    return float(1 / (1 + np.exp(-1.5976 * z - 0.07056 * z**3)))


def long_side(scene_z: float, rng: np.random.Generator, spread: float = 0.65) -> float:
    """A part's long side in pixels of a 512-wide frame; ``scene_z`` is what its scene has in common."""
    z = np.sqrt(1 - spread * spread) * scene_z + spread * rng.standard_normal()
    return float(np.exp(np.interp(_normal_quantile(float(z)), _SIZE_QUANTILES, np.log(_SIZE_PIXELS))))


class Scatter:
    """Lays parts down at random, some against others, without hiding any part too far."""

    def __init__(self, rng: np.random.Generator, frame_wh: tuple[int, int], rig: Rig) -> None:
        self._rng, self._wh, self._rig = rng, frame_wh, rig
        self._zoom = frame_wh[0] / 512
        self._free = np.ones((frame_wh[1], frame_wh[0]), np.float32)
        self._owner = np.full((frame_wh[1], frame_wh[0]), -1, np.int16)
        self._placed: list[Placed] = []
        self._whole: list[float] = []
        self._shown: list[float] = []

    def fill(self) -> list[Placed]:
        rng = self._rng
        scene_z = float(rng.standard_normal())
        wanted = int(rng.integers(5, 17))
        budget = 0.40 * self._wh[0] * self._wh[1]
        same = int(rng.integers(len(SHAPES))) if rng.random() < 0.15 else -1
        for _ in range(wanted + 6):
            if len(self._placed) >= wanted or (len(self._placed) >= 4 and sum(self._whole) > budget):
                break
            class_id = same if same >= 0 and rng.random() < 0.5 else int(rng.integers(len(SHAPES)))
            self._drop(render_part(self._draw(class_id, scene_z), self._rig), class_id)
        return self._placed

    def _draw(self, class_id: int, scene_z: float) -> Part:
        rng = self._rng
        long_px = long_side(scene_z, rng) * self._zoom
        lean, towards = min(abs(rng.normal(0, 0.11)), 0.25), rng.uniform(0, 2 * np.pi)
        tilt = (float(lean * np.cos(towards)), float(lean * np.sin(towards)))
        angle = float(rng.uniform(0, 2 * np.pi))
        return Part(class_id, int(rng.integers(2**31)), long_px, angle, tilt, self._zoom)

    def _drop(self, sprite: Sprite, class_id: int) -> None:
        """Try a few places and take the first that hides nothing too far."""
        rng, (w, h) = self._rng, self._wh
        cover = np.ascontiguousarray(sprite.at(0, 0)[0][..., 3])
        whole = float(cover.sum())
        touching = rng.random() < 0.3 and bool(self._placed)
        worst = 0.3 if rng.random() < 0.08 else 0.62
        for attempt in range(14):
            ch, cw = cover.shape
            if touching and attempt < 8:
                other = self._placed[int(rng.integers(len(self._placed)))]
                oh, ow = (s / other.sprite.factor for s in other.sprite.layers.shape[:2])
                turn = rng.uniform(0, 2 * np.pi)
                far = rng.uniform(0.30, 0.5) * (min(oh, ow) + min(ch, cw)) / 2 * 1.55
                x, y = other.x + far * np.cos(turn), other.y + far * np.sin(turn)
            else:
                reach = 0.2
                x = rng.uniform(-reach * cw, w + reach * cw)
                y = rng.uniform(-reach * ch, h + reach * ch)
            # Whole pixels off the centre keep the still sprite's own sampling.
            x, y = float(round(x)), float(round(y))
            if self._fits(cover, (int(x) - cw // 2, int(y) - ch // 2), whole, worst, touching):
                self._placed.append(Placed(sprite, class_id, x, y))
                return

    def _fits(
        self,
        cover: npt.NDArray[np.float32],
        corner: tuple[int, int],
        whole: float,
        worst: float,
        touching: bool,
    ) -> bool:
        target, source = overlap(self._free.shape, cover.shape, corner)
        here = cover[source]
        seen = float(here.sum())
        least = max(MIN_VISIBLE_PIXELS * 1.35, (MIN_VISIBLE_SHARE + 0.04) * whole)
        if seen < least or (seen < 0.5 * whole and self._rng.random() < 0.75):
            return False
        owner = self._owner[target]
        solid = here >= 0.5
        below = owner[solid]
        below = below[below >= 0]
        if below.size and not touching and below.size > 0.03 * solid.sum():
            return False
        lost = np.bincount(below, minlength=len(self._placed)) if below.size else None
        if lost is not None:
            for index in np.flatnonzero(lost):
                left = self._shown[index] - lost[index]
                if left < max(worst * self._whole[index], MIN_VISIBLE_PIXELS * 1.35):
                    return False
            for index in np.flatnonzero(lost):
                self._shown[index] -= float(lost[index])
        owner[solid] = len(self._placed)
        self._whole.append(whole)
        self._shown.append(seen)
        return True
