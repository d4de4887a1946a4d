"""The traffic on a moving belt as a function of time, so that any video frame can be asked for by itself.

Parts come in lanes, one after another; some roll or slide over the belt at a speed of their own and so
overtake and cross the others. Nothing is simulated step by step: every position is a formula in the time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.conveyor.belt import make_belt, paint_rails
from trt_blendmask.conveyor.camera import Camera, Placed, make_camera
from trt_blendmask.conveyor.layout import long_side
from trt_blendmask.conveyor.parts import Part, Sprite, render_part
from trt_blendmask.conveyor.shading import make_rig
from trt_blendmask.conveyor.shapes import SHAPES

Array = npt.NDArray[np.float32]
_SPRITES = 160  # kept at most: turning parts make new ones all the time
_TURN = np.radians(2.0)  # turning parts are drawn at steps of this angle


@dataclass(frozen=True)
class _Lane:
    """Parts at ``y`` (+- ``sway``), ``gap`` pixels apart, moving at ``speed`` pixels a second."""

    y: float
    sway: float
    gap: float
    speed: float
    drift: float
    rolling: bool


@dataclass(frozen=True)
class _Rider:
    part: Part
    x: float
    y: float
    drift: float
    spin: float
    order: float


class Traffic:
    """Everything that a Conveyor shows except exposure: belt, light and parts at a time in seconds."""

    def __init__(self, seed: int, frame_wh: tuple[int, int]) -> None:
        rng = np.random.default_rng([seed, 3])
        self._seed, self._wh = seed, frame_wh
        self._zoom = frame_wh[0] / 512
        w, h = frame_wh
        self._belt = make_belt(rng, (3 * w, h), self._zoom)
        self._rig = make_rig(rng, self._belt.colour)
        self._camera = make_camera(rng, frame_wh)
        self._scene_z = float(np.clip(rng.normal(0.1, 0.3), -0.5, 0.6))
        self._speed = float(rng.uniform(0.15, 0.20)) * w
        self._beat = rng.uniform(0, 2 * np.pi, 3)
        self._lanes = self._make_lanes(rng)
        self._riders: dict[tuple[int, int], _Rider] = {}
        self._sprites: OrderedDict[tuple[int, int, int], Sprite] = OrderedDict()

    def _make_lanes(self, rng: np.random.Generator) -> tuple[_Lane, ...]:
        w, h = self._wh
        z = self._zoom
        rows = 3
        lanes = [
            _Lane(
                y=h * (k + 0.5) / rows,
                sway=0.16 * h / rows,
                gap=float(rng.uniform(128, 150)) * z,
                speed=self._speed,
                drift=0.0,
                rolling=False,
            )
            for k in range(rows)
        ]
        # Rolling parts overtake between the rows and wander across them.
        for sign in (1.0, -1.0):
            faster = self._speed * float(rng.uniform(1.35, 1.7))
            drift = sign * h * float(rng.uniform(0.03, 0.07))
            lanes.append(_Lane(h * (0.5 - 0.22 * sign), 0.1 * h, 1.1 * w, faster, drift, True))
        return tuple(lanes)

    def background(self, time: float) -> Array:
        """The empty belt under its rails, linear BGR float32 [H,W,3]."""
        w = self._wh[0]
        tile = self._belt.tile
        period = tile.shape[1]
        start = -time * self._speed % period
        left, part = int(np.floor(start)), start - np.floor(start)
        columns = np.arange(left, left + w + 1) % period
        wide = np.ascontiguousarray(np.take(tile, columns, axis=1))
        frame = cv2.addWeighted(wide[:, :w], 1 - part, wide[:, 1:], part, 0.0)
        out = np.asarray(frame, np.float32)
        paint_rails(out, self._belt)
        return out

    def camera(self, time: float, interval: float) -> Camera:
        """The camera at a time: lamps drift a little, the motion blur is that of the belt."""
        a, b, c = self._beat
        swell = 1 + 0.05 * np.sin(0.9 * time + a) + 0.03 * np.sin(2.3 * time + b)
        shutter = 0.22 + 0.08 * np.sin(0.31 * time + c)
        blur = min(self._speed * min(interval, 0.05) * shutter, 0.02 * self._wh[0])
        return replace(self._camera, exposure=self._camera.exposure * float(swell), blur=(float(blur), 0.0))

    def placed(self, time: float) -> list[Placed]:
        """The parts that touch the frame at a time, the lowest first."""
        w, h = self._wh
        margin = 110 * self._zoom
        found: list[tuple[float, int, Placed]] = []
        for number, lane in enumerate(self._lanes):
            travelled = time * lane.speed
            first = int(np.floor((travelled - w - 2 * margin) / lane.gap)) - 1
            last = int(np.ceil((travelled + margin) / lane.gap)) + 1
            for k in range(first, last + 1):
                rider = self._rider(number, k)
                since = (travelled - rider.x) / lane.speed  # seconds since it passed the left edge
                x, y = since * lane.speed, rider.y + rider.drift * (since - 0.5 * w / lane.speed)
                reach = 0.75 * rider.part.long_px
                if not (-reach < x < w + reach and -reach < y < h + reach):
                    continue
                sprite = self._sprite(number, k, rider, since)
                found.append((rider.order, k, Placed(sprite, rider.part.class_id, x, y)))
        return [item for _, _, item in sorted(found, key=lambda entry: entry[:2])]

    def _rider(self, number: int, k: int) -> _Rider:
        key = (number, k)
        if key not in self._riders:
            if len(self._riders) > 4096:
                self._riders.clear()
            self._riders[key] = self._make_rider(number, k)
        return self._riders[key]

    def _make_rider(self, number: int, k: int) -> _Rider:
        # Negative k: those that were on the belt before the first frame.
        rng = np.random.default_rng([self._seed, 4, number, 2 * abs(k) + (k < 0)])
        lane = self._lanes[number]
        rolling = lane.rolling
        class_id = int(rng.choice((1, 6, 7, 8, 3))) if rolling else int(rng.integers(len(SHAPES)))
        long_px = long_side(self._scene_z, rng) * self._zoom
        if rolling:
            long_px = min(long_px, 80 * self._zoom)
        lean, towards = min(abs(rng.normal(0, 0.11)), 0.25), rng.uniform(0, 2 * np.pi)
        tilt = (float(lean * np.cos(towards)), float(lean * np.sin(towards)))
        part = Part(class_id, int(rng.integers(2**31)), long_px, float(rng.uniform(0, 2 * np.pi)), tilt, self._zoom)
        spin = float(rng.choice((-1, 1)) * rng.uniform(0.4, 1.1)) if rolling else 0.0
        if not rolling and rng.random() < 0.12:  # shaken round by the belt
            spin = float(rng.normal(0, 0.3))
        jitter = rng.uniform(-0.5, 0.5, 2)
        return _Rider(
            part=part,
            x=(k + 0.30 * float(jitter[0])) * lane.gap,
            y=lane.y + 2 * lane.sway * float(jitter[1]),
            drift=lane.drift * float(rng.uniform(0.6, 1.2)),
            spin=spin,
            order=float(rng.random() + (1 if rolling else 0)),
        )

    def _sprite(self, number: int, k: int, rider: _Rider, since: float) -> Sprite:
        step = round(rider.spin * since / _TURN)
        key = (number, k, step)
        if key in self._sprites:
            self._sprites.move_to_end(key)
            return self._sprites[key]
        part = replace(rider.part, angle=rider.part.angle + step * _TURN)
        sprite = render_part(part, self._rig)
        self._sprites[key] = sprite
        if len(self._sprites) > _SPRITES:
            self._sprites.popitem(last=False)
        return sprite
