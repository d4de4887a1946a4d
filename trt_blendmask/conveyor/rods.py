"""Parts made of round stock that lie on their side: bolt, spring, pin."""

from __future__ import annotations

import cv2
import numpy as np

from trt_blendmask.conveyor.relief import METALS, Array, Grid, Relief, circle, edge, metal_of, pick, step


def _thread(g: Grid, radius: float, pitch: float, depth: float) -> Array:
    """Radius of a screw thread at each sample: a rounded sawtooth that leans as a helix does."""
    phase = (g.u + np.float32(0.5 * pitch / (2 * radius)) * g.v) * np.float32(2 * np.pi / pitch)
    fade = float(np.clip((pitch * g.q - 2.0) / 2.5, 0, 1))
    wave = np.sin(phase) + 0.25 * np.sin(2 * phase)
    return np.asarray(radius - depth * (0.5 - 0.45 * fade * wave), np.float32)


def bolt(g: Grid, rng: np.random.Generator) -> Relief:
    aspect = rng.uniform(1.75, 3.1 if g.long_px > 36 else 2.3)
    kind = rng.random()  # hex, socket or pan head
    metal = metal_of(rng)
    orient = rng.random()
    shank_share = rng.uniform(0.0, 0.45)
    pitch_share, fill = rng.uniform(0.15, 0.21), rng.uniform(0.54, 0.64)
    half = 0.5 / aspect
    radius = half * fill
    length = half * (0.8 if kind < 0.5 else 1.15 if kind < 0.85 else 0.9)
    neck = -0.5 + length
    pitch = 2 * radius * pitch_share
    stem = _thread(g, radius, pitch, radius * 0.16)
    plain = neck + (0.5 - neck) * shank_share
    stem = np.where(g.u < plain, np.float32(radius * 0.97), stem)
    stem = np.minimum(stem, radius * 0.72 + np.maximum(0.5 - g.u, 0) * 0.9)
    side = np.abs(g.v)
    d_stem = np.maximum(side - stem, np.maximum(g.u - 0.5, np.float32(neck - 0.02) - g.u))
    h_stem = np.sqrt(np.maximum(stem * stem - g.v * g.v, 0))
    end = edge(g.u + 0.5, half * 0.22)
    if kind < 0.5:
        width = half * (0.93 + 0.07 * end)
        if orient < 0.6:
            h_head = half * np.minimum(0.866, (1 - side / half) * 1.732) * (0.93 + 0.07 * end)
            # The middle facet swells where the chamfer cuts the corners.
        else:
            width = width * 0.9
            h_head = half * (1 - side / half * 0.577) * (0.94 + 0.06 * end)
        collar = (g.u > neck - half * 0.1) & (side < half * 0.86)
        h_head = np.where(collar, circle((half * 0.86) ** 2, g.v), h_head)
        width = np.where(g.u > neck - half * 0.1, half * 0.86, width)
    elif kind < 0.85:
        width = half * (0.88 + 0.12 * end)
        knurl = 0.012 * np.sin(np.arcsin(np.clip(g.v / half, -1, 1)) * 34) * (g.u < neck - 0.15 * half)
        h_head = circle(half * half, g.v) + knurl * half * 4
    else:
        width = half * np.sqrt(np.clip(1 - ((neck - g.u) / length) ** 2, 0.0, 1))
        h_head = np.sqrt(np.maximum(width * width - g.v * g.v, 0))
    d_head = np.maximum(side - width, np.maximum(-0.5 - g.u, g.u - np.float32(neck)))
    head = d_head < d_stem
    height = np.where(d_head < 0, np.maximum(h_head, h_stem * (d_stem < 0)), h_stem) + half
    distance = np.where(head, d_head, d_stem)
    return Relief(distance.astype(np.float32), height.astype(np.float32), (metal,), None, "v", 0.0, 1.6 * half)


def spring(g: Grid, rng: np.random.Generator) -> Relief:
    aspect = rng.uniform(2.0, 3.2 if g.long_px > 36 else 2.4)
    hooked, metal = rng.random() < 0.65, pick(rng, METALS, (0.35, 0.25, 0.2, 0.05, 0.05, 0.1))
    coils = int(rng.integers(7, 12))
    hooked = hooked and g.long_px > 36  # thinner wire than 3 px would be lost
    big = 0.5 / aspect
    hook = big * rng.uniform(0.78, 0.95)
    body = 0.5 - (1.35 * hook if hooked else 0.0)
    pitch = 2 * body / coils
    wire = pitch / 2
    phase = (g.u + body) / pitch + g.v * np.float32(0.25 / big)
    bump = circle(1.0, 2 * (phase - np.floor(phase)) - 1)
    outer = np.float32(big - wire) + np.float32(wire) * bump
    fade = float(np.clip((pitch * g.q - 2.0) / 2.5, 0.15, 1))
    side = np.abs(g.v)
    distance = np.maximum(side - outer, np.abs(g.u) - np.float32(body))
    height = np.sqrt(np.maximum(big * big - g.v * g.v, 0)) + fade * wire * 1.15 * (bump - 1)
    if hooked:
        stroke = max(wire * 0.9, 0.19 * hook)
        for sign in (-1.0, 1.0):
            r = cv2.magnitude(g.u - np.float32(sign * (0.5 - hook)), g.v)
            loop = np.abs(r - np.float32(hook - stroke)) - np.float32(stroke)
            gap = np.maximum(np.abs(g.u * sign - (0.5 - hook * 1.2)) - hook * 0.5, -g.v * sign)
            loop = np.maximum(loop, -np.maximum(gap, side - 2.0) if rng.random() < 0.5 else loop)
            torus = big * 0.5 + circle(stroke * stroke, r - np.float32(hook - stroke))
            closer = (loop < 0) & (distance > 0)
            height = np.where(closer, torus, height)
            distance = np.minimum(distance, loop)
    height = height + big
    return Relief(distance.astype(np.float32), height.astype(np.float32), (metal,), None, "", 0.0, 1.7 * big)


def pin(g: Grid, rng: np.random.Generator) -> Relief:
    aspect = rng.uniform(2.3, 4.3 if g.long_px > 40 else 2.9)
    kind, metal = rng.random(), metal_of(rng)
    taper, tip = rng.uniform(0.0, 0.1), rng.uniform(0.3, 0.9)
    where = rng.uniform(-0.3, 0.3)
    big = 0.5 / aspect
    radius = big * (1 - np.float32(taper) * (g.u + 0.5))
    end = np.minimum(0.5 - g.u, g.u + 0.5)
    if rng.random() < 0.5:  # chamfered
        radius = np.minimum(radius, big * (1 - 0.3 * tip) + np.maximum(end, 0) * 0.55)
    else:  # domed
        radius = radius * (0.45 + 0.55 * edge(end, big * tip))
    if kind < 0.3:  # grooves
        for place in (where, -where):
            radius = radius - big * 0.14 * np.exp(-(((g.u - np.float32(place)) / 0.02) ** 4))
    side = np.abs(g.v)
    distance = np.maximum(side - radius, -end)
    height = np.sqrt(np.maximum(radius * radius - g.v * g.v, 0))
    if 0.3 <= kind < 0.5:  # rolled spring pin with its slit
        height -= big * 0.8 * (np.abs(g.v - big * 0.35) < big * 0.1)
    elif 0.5 <= kind < 0.65:  # cross hole
        spot = cv2.magnitude(g.u - np.float32(0.3), g.v)
        height -= big * 1.2 * (1 - step(big * 0.25, big * 0.36, spot))
    height = height + big
    return Relief(distance.astype(np.float32), height.astype(np.float32), (metal,), None, "v", 0.0, 1.9 * big)
