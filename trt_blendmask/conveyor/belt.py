"""The conveyor belt: its weave or dimples, wear, stains, litter, seam and side rails (linear BGR float32)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from trt_blendmask.conveyor.shading import noise_tile, sample_tile

Array = npt.NDArray[np.float32]
# Linear BGR of the usual belt makes: black rubber, grey, green PVC, blue food grade, beige, white.
COLOURS = (
    (0.030, 0.030, 0.030),
    (0.110, 0.105, 0.100),
    (0.060, 0.120, 0.040),
    (0.210, 0.090, 0.035),
    (0.200, 0.270, 0.310),
    (0.400, 0.420, 0.420),
)


@dataclass(frozen=True)
class Belt:
    """``tile`` [h,w,3] repeats along x; ``rails`` = heights in pixels of the rails at the top and bottom."""

    tile: Array
    colour: Array
    rails: tuple[int, int]
    rail: Array | None  # [max rail,w,3], the profile painted over the top; mirrored for the bottom


def make_belt(rng: np.random.Generator, size: tuple[int, int], zoom: float) -> Belt:
    """Draw a belt ``size`` = (w, h) pixels; ``zoom`` = frame width / 512."""
    w, h = size
    colour = np.array(COLOURS[int(rng.choice(len(COLOURS), p=(0.22, 0.24, 0.2, 0.14, 0.1, 0.1)))])
    colour = (colour * rng.uniform(0.75, 1.3) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    relief, strength = _texture(rng, w, h, zoom)
    slope = _light_relief(relief, rng) * np.float32(strength)
    value = 1 + slope
    value += np.float32(rng.uniform(0.02, 0.05)) * _noise("grain", rng, w, h, 1.3 / zoom)
    value += np.float32(rng.uniform(0.03, 0.09)) * _noise("cloud", rng, w, h, 0.6 / zoom)
    value += np.float32(rng.uniform(0.0, 0.06)) * _noise("streak", rng, w, h, 0.5 / zoom)
    tile = value[..., None] * colour
    _scuffs(tile, rng, zoom)
    _stains(tile, rng, zoom)
    if rng.random() < 0.3:
        _seam(tile, rng, zoom)
    _litter(tile, rng, zoom)
    top = int(rng.uniform(10, 26) * zoom) if rng.random() < 0.3 else 0
    bottom = int(rng.uniform(10, 26) * zoom) if rng.random() < 0.3 else 0
    rail = _rail(rng, max(top, bottom), w) if top or bottom else None
    return Belt(np.maximum(tile, 0.003).astype(np.float32), colour, (top, bottom), rail)


def _noise(kind: str, rng: np.random.Generator, w: int, h: int, step: float) -> Array:
    """A crop of a noise tile [h,w], ``step`` tile pixels per pixel, that wraps along x."""
    coarse = 4 if kind == "cloud" else 1  # smooth: a quarter of the samples will do
    columns, rows = -(-w // coarse), -(-h // coarse)
    across = w * step / 512
    across = round(across) if across > 0.8 else across
    x = np.arange(columns, dtype=np.float32) * np.float32(512 * across / columns)
    y = np.arange(rows, dtype=np.float32) * np.float32(step * coarse)
    x, y = x + np.float32(rng.uniform(0, 512)), y + np.float32(rng.uniform(0, 512))
    grid_x, grid_y = np.meshgrid(x, y)
    found = sample_tile(noise_tile(kind), grid_x, grid_y)
    if coarse > 1:
        found = np.asarray(cv2.resize(found, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
    return found


def _texture(rng: np.random.Generator, w: int, h: int, zoom: float) -> tuple[Array, float]:
    """Height relief of the surface, about -1..1, and how strongly it shows."""
    kind = rng.random()
    pitch = float(rng.uniform(3.2, 6.5)) * zoom
    pitch = w / max(1, round(w / pitch))  # a whole number of periods, so that the tile wraps
    x = np.arange(w, dtype=np.float32) * np.float32(2 * np.pi / pitch)
    y = np.arange(h, dtype=np.float32) * np.float32(2 * np.pi / pitch)
    cx, cy = np.cos(x)[None], np.cos(y)[:, None]
    if kind < 0.3:  # woven: warp and weft take turns on top
        check = np.cos(x / 2)[None] * np.cos(y / 2)[:, None]
        return np.asarray(check * (cx - cy) * 0.9, np.float32), float(rng.uniform(0.10, 0.22))
    if kind < 0.55:  # dimples or nubs
        bump = np.maximum(cx + cy, 0) ** 1.5
        sign = 1.0 if rng.random() < 0.5 else -1.0
        return np.asarray(bump * 0.5 * sign, np.float32), float(rng.uniform(0.12, 0.26))
    if kind < 0.7:  # fine ribs along the travel
        return np.asarray(np.broadcast_to(cy, (h, w)), np.float32).copy(), float(rng.uniform(0.06, 0.16))
    if kind < 0.8:  # diamonds
        diamond = np.abs(np.cos((x / 4)[None] + (y / 4)[:, None])) ** 6
        diamond = diamond + np.abs(np.cos((x / 4)[None] - (y / 4)[:, None])) ** 6
        return np.asarray(diamond, np.float32), float(rng.uniform(0.08, 0.16))
    return _noise("grain", rng, w, h, 1.0 / zoom), float(rng.uniform(0.04, 0.08))


def _light_relief(relief: Array, rng: np.random.Generator) -> Array:
    angle = rng.uniform(0, 2 * np.pi)
    dx = np.roll(relief, 1, axis=1) - np.roll(relief, -1, axis=1)
    dy = np.roll(relief, 1, axis=0) - np.roll(relief, -1, axis=0)
    lit = dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))
    spread = float(lit.std()) + 1e-6
    return np.asarray(lit / np.float32(spread) * np.float32(0.75) + relief * np.float32(0.35), np.float32)


def _scuffs(tile: Array, rng: np.random.Generator, zoom: float) -> None:
    """Scratches, most of them along the travel, lighter or darker than the belt."""
    h, w = tile.shape[:2]
    layer = np.zeros((h, w), np.float32)
    for _ in range(int(rng.integers(4, 22) * w / (512 * zoom))):
        angle = rng.normal(0, 0.12) if rng.random() < 0.75 else rng.uniform(0, np.pi)
        length = rng.uniform(8, 130) * zoom
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        end = (int(x + length * np.cos(angle)), int(y + length * np.sin(angle)))
        width = 2 if rng.random() < 0.15 * zoom else 1
        cv2.line(layer, (int(x), int(y)), end, float(rng.uniform(-0.25, 0.35)), width, cv2.LINE_AA)
    tile *= (1 + cv2.GaussianBlur(layer, (0, 0), 0.6 * zoom))[..., None]


def _stains(tile: Array, rng: np.random.Generator, zoom: float) -> None:
    """Oil: dark, soft, irregular, with a faint shine on one side; sometimes a smear of chalk."""
    h, w = tile.shape[:2]
    for _ in range(int(rng.poisson(1.6 * w / (512 * zoom)))):
        radius = rng.uniform(6, 46) * zoom
        n = max(16, int(2.6 * radius))
        axis = np.linspace(-1.3, 1.3, n, dtype=np.float32)
        gx, gy = np.meshgrid(axis, axis)
        r = cv2.magnitude(gx, gy * np.float32(rng.uniform(0.8, 1.8)))
        theta = np.arctan2(gy, gx)
        wobble = sum(rng.normal(0, 0.13 / k) * np.cos(k * theta + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5, 7))
        body = np.clip((1 - r + wobble) * rng.uniform(3, 9), 0, 1)
        x, y = int(rng.uniform(-n / 2, w - n / 2)), int(rng.uniform(-n / 2, h - n / 2))
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + n, w), min(y + n, h)
        part = body[y0 - y : y1 - y, x0 - x : x1 - x, None].astype(np.float32)
        if rng.random() < 0.85:
            tile[y0:y1, x0:x1] *= 1 - part * np.float32(rng.uniform(0.15, 0.5))
            shine = cv2.GaussianBlur(body, (0, 0), 1.5 * zoom) - cv2.GaussianBlur(body, (0, 0), 3 * zoom)
            shine = np.maximum(shine * (gx + gy), 0)[y0 - y : y1 - y, x0 - x : x1 - x, None]
            tile[y0:y1, x0:x1] += shine * np.float32(rng.uniform(0.0, 0.25))
        else:
            tile[y0:y1, x0:x1] += part * np.float32(rng.uniform(0.01, 0.035))


def _seam(tile: Array, rng: np.random.Generator, zoom: float) -> None:
    """The joint of the belt: a slanted line, vulcanised or laced with clips."""
    h, w = tile.shape[:2]
    x = rng.uniform(0.1, 0.9) * w
    slant = rng.uniform(-0.35, 0.35) * h
    layer = np.zeros((h, w), np.float32)
    start, end = (int(x - slant), -1), (int(x + slant), h)
    cv2.line(layer, start, end, -0.45, max(1, int(1.5 * zoom)), cv2.LINE_AA)
    cv2.line(layer, (start[0] + int(2 * zoom), -1), (end[0] + int(2 * zoom), h), 0.25, 1, cv2.LINE_AA)
    if rng.random() < 0.4:
        pitch = rng.uniform(6, 10) * zoom
        for k in range(int(h / pitch) + 1):
            y = k * pitch
            c = x + slant * (2 * y / h - 1)
            half = 3.5 * zoom
            a, b = (int(c - half), int(y)), (int(c + half), int(y))
            cv2.line(layer, a, b, 0.7, max(1, int(1.6 * zoom)), cv2.LINE_AA)
    tile *= (1 + cv2.GaussianBlur(layer, (0, 0), 0.5 * zoom))[..., None]


def _litter(tile: Array, rng: np.random.Generator, zoom: float) -> None:
    """Chips and swarf, crumbs, chalk strokes: never annotated, never as large as a part."""
    h, w = tile.shape[:2]
    layer, lit = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    for _ in range(int(rng.poisson(7 * w / (512 * zoom)))):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        turn, bend = rng.uniform(0, 6.3), rng.normal(0, 0.5)
        points = [(x, y)]
        for _ in range(int(rng.integers(1, 6))):
            turn += bend
            step = rng.uniform(0.7, 1.6) * zoom
            points.append((points[-1][0] + step * np.cos(turn), points[-1][1] + step * np.sin(turn)))
        line = np.round(np.array(points) * 16).astype(np.int32)[None]
        cv2.polylines(layer, list(line), False, 1.0, max(1, round(0.9 * zoom)), cv2.LINE_AA, 4)
        cv2.polylines(lit, list(line), False, float(rng.uniform(0.05, 0.6)), 1, cv2.LINE_AA, 4)
    shade = cv2.GaussianBlur(np.roll(layer, (1, 1), (0, 1)), (0, 0), 0.7 * zoom)
    tile *= (1 - 0.4 * shade)[..., None]
    tile += lit[..., None] * np.array([0.55, 0.58, 0.60], np.float32)
    if rng.random() < 0.12:
        chalk = np.zeros((h, w), np.float32)
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        for _ in range(int(rng.integers(1, 4))):
            x2, y2 = x + rng.normal(0, 30) * zoom, y + rng.normal(0, 25) * zoom
            cv2.line(chalk, (int(x), int(y)), (int(x2), int(y2)), 1.0, max(1, int(2 * zoom)), cv2.LINE_AA)
            x, y = x2, y2
        crumble = np.clip(0.35 + 0.45 * _noise("grain", rng, w, h, 1.5 / zoom), 0, 1)
        tile += (chalk * crumble)[..., None] * np.float32(0.28)


def _rail(rng: np.random.Generator, height: int, w: int) -> Array:
    """An extruded side rail, the edge away from the belt first."""
    y = np.linspace(0, 1, height, dtype=np.float32)
    profile = 0.28 + 0.2 * np.cos(y * np.float32(rng.uniform(4, 9)) + np.float32(rng.uniform(0, 6)))
    profile *= np.where(np.abs(y - rng.uniform(0.3, 0.6)) < 0.08, 0.35, 1.0)
    profile[-max(1, height // 12) :] *= 1.7
    rail = profile[:, None] * (1 + 0.06 * _noise("streak", rng, w, height, 1.0))
    tint = np.array([1.03, 1.0, 0.97], np.float32) * np.float32(rng.uniform(0.5, 1.2))
    return np.asarray(np.maximum(rail, 0.01)[..., None] * tint, np.float32)


def paint_rails(frame: Array, belt: Belt) -> None:
    """Lay the rails and their shadow over a frame, in place."""
    if belt.rail is None:
        return
    h = frame.shape[0]
    for at_top, size in ((True, belt.rails[0]), (False, belt.rails[1])):
        if not size:
            continue
        fade = np.linspace(0.45, 1, size, dtype=np.float32)[:, None, None]
        profile = belt.rail[-size:, : frame.shape[1]]
        if at_top:
            frame[:size] = profile
            frame[size : 2 * size] *= fade[: len(frame[size : 2 * size])]
        else:
            frame[h - size :] = profile[::-1]
            frame[h - 2 * size : h - size] *= fade[::-1]
