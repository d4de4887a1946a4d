"""Synthetic conveyor scenes with exact instance masks: the bundled model's world.

Metal and rubber parts on a belt, seen by a camera from above. Everything is computed from a seed with numpy
and OpenCV; the global random state is neither read nor changed. Bytes repeat with the same numpy and OpenCV;
other versions round differently, which can change grey values and, now and then, where a part lies.

Example:
    >>> scene = render_scene(seed=7, index=0)
    >>> scene.image.shape, scene.instances[0].mask.dtype
    ((288, 512, 3), dtype('bool'))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_blendmask.conveyor.belt import make_belt, paint_rails
from trt_blendmask.conveyor.camera import Placed, expose, lay, make_camera, visible
from trt_blendmask.conveyor.layout import MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE, Scatter
from trt_blendmask.conveyor.shading import make_rig
from trt_blendmask.conveyor.traffic import Traffic

CLASS_NAMES: tuple[str, ...] = (
    "hex nut",
    "washer",
    "bolt",
    "gear",
    "bracket",
    "spring",
    "O-ring",
    "bearing",
    "pin",
    "wing nut",
)


@dataclass(frozen=True)
class Instance:
    """One visible part.

    ``class_id`` indexes CLASS_NAMES. ``box`` = (x1, y1, x2, y2) in frame pixels, integers, tight about the
    visible mask, right and bottom exclusive. ``mask`` bool [y2-y1, x2-x1]: pixels of which at least half
    shows the part, without its holes, before motion blur (centred on the exposure).
    """

    class_id: int
    box: tuple[float, float, float, float]
    mask: npt.NDArray[np.bool_]

    def full_mask(self, frame_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """The mask in a whole frame, bool [H,W]."""
        full = np.zeros(frame_hw, np.bool_)
        x1, y1, x2, y2 = (int(c) for c in self.box)
        full[y1:y2, x1:x2] = self.mask
        return full


@dataclass(frozen=True)
class Scene:
    """``image`` uint8 [H,W,3] BGR and its instances; the masks of a scene are disjoint."""

    image: npt.NDArray[np.uint8]
    instances: tuple[Instance, ...]


def render_scene(seed: int, index: int, frame_wh: tuple[int, int] = (512, 288)) -> Scene:
    """Render scene ``index`` of the set ``seed``: equal arguments give equal bytes.

    ``frame_wh`` scales the scene: sizes are relative to the width. Raises ValueError for a frame smaller
    than 64 x 36 pixels or a negative seed or index.
    """
    _check(seed, index, frame_wh)
    rng = np.random.default_rng([seed, index, 1])
    w, h = frame_wh
    zoom = w / 512
    belt = make_belt(rng, frame_wh, zoom)
    rig = make_rig(rng, belt.colour)
    camera = make_camera(rng, frame_wh)
    placed = Scatter(rng, frame_wh, rig).fill()
    frame = belt.tile.copy()
    paint_rails(frame, belt)
    covers = lay(frame, placed)
    image = expose(frame, camera, rng)
    return Scene(image, _annotate(placed, covers, (h, w)))


class Conveyor:
    """A moving belt: parts enter, ride along, roll and cross, and leave.

    ``frame(n)`` may be asked for any n >= 0 in any order and always gives the same bytes for the same
    constructor arguments. Speeds are per second, so ``fps`` changes only the sampling of time. At 1024 x 576
    the same parts are shown at twice the resolution of the 512 x 288 still scenes. Other than in a still
    scene, a part that is just entering or leaving is drawn but not annotated until enough of it is visible.

    Example:
        >>> belt = Conveyor(seed=7, frame_wh=(512, 288))
        >>> belt.frame(10).image.shape
        (288, 512, 3)
    """

    def __init__(self, seed: int, frame_wh: tuple[int, int] = (1024, 576), fps: float = 25.0) -> None:
        """Raises ValueError for a negative seed, a frame below 64 x 36 pixels or fps <= 0."""
        _check(seed, 0, frame_wh)
        if not fps > 0:
            raise ValueError(f"expected fps > 0, got {fps}")
        self._seed, self._fps, self._frame_wh = seed, fps, frame_wh
        self._traffic = Traffic(seed, frame_wh)

    def frame(self, n: int) -> Scene:
        """Frame ``n`` (>= 0), at time n / fps seconds. Raises ValueError for a negative n."""
        if n < 0:
            raise ValueError(f"expected a frame number >= 0, got {n}")
        time = n / self._fps
        frame = self._traffic.background(time)
        placed = self._traffic.placed(time)
        covers = lay(frame, placed)
        camera = self._traffic.camera(time, 1 / self._fps)
        image = expose(frame, camera, np.random.default_rng([self._seed, n, 2]))
        return Scene(image, _annotate(placed, covers, self._frame_wh[::-1]))


def _check(seed: int, index: int, frame_wh: tuple[int, int]) -> None:
    if seed < 0 or index < 0:
        raise ValueError(f"expected seed and index >= 0, got {seed} and {index}")
    if frame_wh[0] < 64 or frame_wh[1] < 36:
        raise ValueError(f"expected a frame of at least 64 x 36 pixels, got {frame_wh[0]} x {frame_wh[1]}")


def _annotate(
    placed: list[Placed],
    covers: list[tuple[npt.NDArray[np.float32], tuple[int, int]]],
    frame_hw: tuple[int, int],
) -> tuple[Instance, ...]:
    found = []
    for item, (cover, corner), mask in zip(placed, covers, visible(covers, frame_hw), strict=True):
        area = int(mask.sum())
        if area < MIN_VISIBLE_PIXELS or area < MIN_VISIBLE_SHARE * float((cover >= 0.5).sum()):
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        x, y = corner
        box = (float(x + x1), float(y + y1), float(x + x2), float(y + y2))
        found.append(Instance(item.class_id, box, mask[y1:y2, x1:x2].copy()))
    return tuple(found)
