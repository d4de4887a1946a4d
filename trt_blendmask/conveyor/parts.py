"""One part as a picture: sprite with coverage, shading and shadow, ready to be laid on the belt."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.conveyor.relief import Grid, Relief
from trt_blendmask.conveyor.shading import (
    MATERIALS,
    Material,
    Rig,
    look_up,
    noise_tile,
    normals,
    response,
    sample_tile,
    surface_tile,
    times,
)
from trt_blendmask.conveyor.shapes import HALF_WIDTHS, SHAPES

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """What is drawn: class, seed of its variation, long side in frame pixels, pose.

    ``angle`` in radians, ``tilt`` = (tx, ty) the lean of its top face in the image (|tilt| < 0.25), ``zoom``
    = frame width / 512, so that details do not depend on the resolution.
    """

    class_id: int
    seed: int
    long_px: float
    angle: float
    tilt: tuple[float, float]
    zoom: float


@dataclass(frozen=True)
class Sprite:
    """A rendered part. ``layers`` float32 [h,w,4]: premultiplied linear BGR and coverage, at ``factor``
    times the frame's resolution; the part's centre lies in the middle. ``shadow`` float32 [H,W] in frame
    pixels, likewise centred: the share of light taken away.
    """

    layers: Array
    shadow: Array
    factor: int

    def at(self, x: float, y: float) -> tuple[Array, Array, tuple[int, int], tuple[int, int]]:
        """Layers and shadow in frame pixels with the centre at (x, y), and both top-left corners (x, y)."""
        h, w = self.layers.shape[0] // self.factor, self.layers.shape[1] // self.factor
        left, top = int(np.floor(x - w / 2)), int(np.floor(y - h / 2))
        fx, fy = x - w / 2 - left, y - h / 2 - top
        layers, shadow = self.layers, self.shadow
        if fx > 1e-3 or fy > 1e-3:
            size = (layers.shape[1], layers.shape[0])
            shift = np.array([[1, 0, fx * self.factor], [0, 1, fy * self.factor]], np.float32)
            layers = np.asarray(cv2.warpAffine(layers, shift, size), np.float32)
            shift = np.array([[1, 0, fx], [0, 1, fy]], np.float32)
            shadow = np.asarray(cv2.warpAffine(shadow, shift, shadow.shape[::-1]), np.float32)
        small = np.asarray(cv2.resize(layers, (w, h), interpolation=cv2.INTER_AREA), np.float32)
        edge = ((shadow.shape[1] - w) // 2, (shadow.shape[0] - h) // 2)
        return small, shadow, (left, top), (left - edge[0], top - edge[1])


def render_part(part: Part, rig: Rig) -> Sprite:
    """Draw one part under a rig; depends on nothing but its arguments."""
    rng = np.random.default_rng(part.seed)
    nominal = part.long_px / part.zoom
    factor = 2 if nominal > 40 else 3 if nominal > 22 else 4
    q = part.long_px * factor
    c, s = np.float32(np.cos(part.angle)), np.float32(np.sin(part.angle))
    reach_v = HALF_WIDTHS[part.class_id]
    lean = 0.03 + 0.35 * float(np.hypot(*part.tilt))
    reach_x = float(abs(c) * 0.5 + abs(s) * reach_v) + lean
    reach_y = float(abs(s) * 0.5 + abs(c) * reach_v) + lean
    x, y = np.meshgrid(_axis(part.long_px, reach_x, factor), _axis(part.long_px, reach_y, factor))
    x, y = _unforeshorten(x, y, part.tilt)
    grid = Grid(x * c + y * s, y * c - x * s, q, nominal)
    relief = SHAPES[part.class_id](grid, rng)
    coverage = np.clip(0.5 - relief.distance * np.float32(q), 0, 1)
    layers = cv2.merge((*cv2.split(_shade(relief, grid, part, rig, rng, coverage)), coverage))
    if relief.wall > 0:
        layers = _add_wall(layers, relief, part, rig, q)
    layers = np.ascontiguousarray(layers, np.float32)
    return Sprite(layers, _shadow(layers[..., 3], relief, part, rig, factor), factor)


def _axis(long_px: float, reach: float, factor: int) -> Array:
    """Sample centres, in units of the long side, of an even number of frame pixels about the centre."""
    n = 2 * (int(np.ceil(long_px * reach)) + 2) * factor
    return (np.arange(n, dtype=np.float32) + np.float32(0.5 - n / 2)) / np.float32(long_px * factor)


def _unforeshorten(x: Array, y: Array, tilt: tuple[float, float]) -> tuple[Array, Array]:
    lean = float(np.hypot(*tilt))
    if lean < 1e-3:
        return x, y
    tx, ty = tilt[0] / lean, tilt[1] / lean
    stretch = 1 / np.sqrt(1 - lean * lean) - 1
    along = (x * np.float32(tx) + y * np.float32(ty)) * np.float32(stretch)
    return x + along * np.float32(tx), y + along * np.float32(ty)


def _shade(relief: Relief, g: Grid, part: Part, rig: Rig, rng: np.random.Generator, coverage: Array) -> Array:
    """Colours [h,w,3], premultiplied by the coverage."""
    blurred = cv2.GaussianBlur(relief.height * np.float32(g.q), (0, 0), 0.7)
    height = np.asarray(blurred, np.float32)
    nx, ny = normals(height, part.tilt)
    broad = _broad(height, max(0.03 * g.q, 1.0))
    cavity = np.clip(1 - (broad - height) * np.float32(9.0 / g.q), 0.25, 1).astype(np.float32)
    offset = rng.uniform(0, 512, 4).astype(np.float32)
    # Camera and lamps are near: across a flat face the reflection drifts.
    drift = 0.16 * part.long_px / (100 * part.zoom) + 0.06
    c, s = np.float32(drift * np.cos(part.angle)), np.float32(drift * np.sin(part.angle))
    nx, ny = nx + (g.u * c - g.v * s), ny + (g.u * s + g.v * c)
    pattern = np.float32(180.0)
    both = sample_tile(surface_tile(), g.u * pattern + offset[0], g.v * pattern + offset[1])
    cloud, grain = (np.asarray(x, np.float32) for x in cv2.split(both))
    brush = _brush_noise(relief.brush, g, offset)
    wear = float(rng.uniform(0, 1))
    region = relief.region if relief.region is not None else np.zeros(height.shape, np.uint8)
    out = np.zeros((*height.shape, 3), np.float32)
    for index, name in enumerate(relief.materials):
        where = region == index
        if where.any():
            shaded = _material(MATERIALS[name], nx, ny, cloud, grain, brush, wear, rig)
            cv2.copyTo(shaded, where.astype(np.uint8), out)
    return times(out, cavity * coverage * (1 + 0.05 * cloud + 0.03 * grain))


def _broad(height: Array, sigma: float) -> Array:
    """A wide blur, at half the resolution."""
    h, w = height.shape
    half = cv2.resize(height, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
    half = cv2.GaussianBlur(half, (0, 0), sigma / 2)
    return np.asarray(cv2.resize(half, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


def _brush_noise(kind: str, g: Grid, offset: Array) -> tuple[Array, Array] | None:
    """Tooling marks: a slope along one image direction per pixel, as (x, y) fields."""
    if not kind:
        return None
    # Local u runs along (c, s) in the image; gradients of the linear fields give the directions back.
    ux, vx = g.u[0, 1] - g.u[0, 0], g.v[0, 1] - g.v[0, 0]
    scale = np.float32(1 / max(float(np.hypot(ux, vx)), 1e-9))
    c, s = ux * scale, -vx * scale
    if kind == "ring":
        r = cv2.magnitude(g.u, g.v)
        mark = sample_tile(noise_tile("streak"), np.arctan2(g.v, g.u) * 6 + offset[0], r * 330 + offset[1])
        inv = mark / np.maximum(r, 1e-3)
        return (g.u * c - g.v * s) * inv, (g.u * s + g.v * c) * inv
    if kind == "u":
        mark = sample_tile(noise_tile("streak"), g.u * 60 + offset[0], g.v * 300 + offset[1])
        return -s * mark, c * mark
    mark = sample_tile(noise_tile("streak"), g.v * 60 + offset[0], g.u * 300 + offset[1])
    return c * mark, s * mark


def _material(
    m: Material,
    nx: Array,
    ny: Array,
    cloud: Array,
    grain: Array,
    brush: tuple[Array, Array] | None,
    wear: float,
    rig: Rig,
) -> Array:
    if brush is not None and m.brush:
        nx, ny = nx + np.float32(m.brush) * brush[0], ny + np.float32(m.brush) * brush[1]
    wobble = np.float32(0.02 + m.grain)
    nx, ny = nx + wobble * grain, ny + wobble * np.float32(0.7) * cloud
    out = look_up(response(rig, m), nx, ny)
    if m.name == "yellow_zinc":  # passivation shimmers between yellow and violet
        shimmer = np.clip(0.12 * cloud, -0.3, 0.3)[..., None]
        out *= 1 + shimmer * np.array([1.2, -0.3, 0.2], np.float32)
    if m.rust and wear < m.rust * 2.2:
        amount = 1.35 - 1.0 * wear / (m.rust * 2.2) * 0.5
        spots = np.clip((cloud + 0.55 * grain - np.float32(2.1 - amount * 0.7)) * 1.6, 0, 0.85)
        rust = look_up(rig.matte, nx, ny) * np.array([0.030, 0.085, 0.22], np.float32)
        out += times(times(rust, 1 + np.float32(0.3) * grain) - out, spots)
    return out


def _add_wall(layers: Array, relief: Relief, part: Part, rig: Rig, q: float) -> Array:
    """Extrude downwards: the side that the slanted view uncovers."""
    dx, dy = (-part.tilt[0] * relief.wall * q, -part.tilt[1] * relief.wall * q)
    reach = float(np.hypot(dx, dy))
    if reach < 0.6:
        return layers
    top = np.ascontiguousarray(layers[..., 3])
    size = top.shape[::-1]
    steps = int(np.clip(np.ceil(reach / 1.5), 2, 10))
    total, deep = top.copy(), np.zeros_like(top)
    for k in range(1, steps + 1):
        shift = np.array([[1, 0, dx * k / steps], [0, 1, dy * k / steps]], np.float32)
        here = np.asarray(cv2.warpAffine(top, shift, size), np.float32)
        np.maximum(total, here, out=total)
        deep += here
    soft = cv2.GaussianBlur(total, (0, 0), max(0.012 * q, 0.45 * reach))
    gx, gy = cv2.Scharr(soft, cv2.CV_32F, 1, 0), cv2.Scharr(soft, cv2.CV_32F, 0, 1)
    scale = np.float32(-0.9) / (cv2.magnitude(gx, gy) + np.float32(1e-4))
    colour = look_up(response(rig, MATERIALS[relief.materials[0]]), gx * scale, gy * scale)
    # Darker towards the belt: few of the shifted outlines reach there.
    under = times(colour, (0.3 + np.float32(0.45 / steps) * deep) * (total - top))
    b, gr, r = cv2.split(under)
    return np.asarray(layers + cv2.merge((b, gr, r, total - top)), np.float32)


def _shadow(coverage: Array, relief: Relief, part: Part, rig: Rig, factor: int) -> Array:
    """Cast shadow (moved away from the key light, softened with height) joined with the contact shadow."""
    h, w = coverage.shape[0] // factor, coverage.shape[1] // factor
    zoom, long_px = part.zoom, part.long_px
    tall = relief.thickness * long_px
    throw = tall / rig.key[2]
    dx, dy = -rig.key[0] * throw, -rig.key[1] * throw
    blur = max(0.6 * zoom, tall * rig.softness)
    contact_blur = max(0.8 * zoom, 0.022 * long_px)
    edge = 2 * int(np.ceil((max(abs(dx), abs(dy)) + 3 * blur + 0.05 * long_px + 2) / 2))
    # Shadows are soft: half of the resolution is enough for the larger ones.
    k = 2 if contact_blur > 1.2 and blur > 1.2 else 1
    small = cv2.resize(coverage, (w // k, h // k), interpolation=cv2.INTER_AREA)
    e = edge // k
    big = cv2.copyMakeBorder(small, e, e, e, e, cv2.BORDER_CONSTANT, value=(0.0,))
    cast = np.zeros_like(big)
    for share in (0.35, 0.7, 1.0):
        shift = np.array([[1, 0, dx * share / k], [0, 1, dy * share / k]], np.float32)
        cast = np.maximum(cast, cv2.warpAffine(big, shift, big.shape[::-1]))
    cast = cv2.GaussianBlur(cast, (0, 0), blur / k)
    contact = cv2.GaussianBlur(big, (0, 0), contact_blur / k)
    taken = 1 - (1 - np.float32(rig.shadow) * cast) * (1 - np.float32(0.5) * contact)
    if k > 1:
        taken = cv2.resize(taken, (w + 2 * edge, h + 2 * edge), interpolation=cv2.INTER_LINEAR)
    return np.asarray(taken, np.float32)
