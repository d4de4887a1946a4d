"""Parts that lie flat, and the table of all ten classes.

Every shape is a function of local coordinates (u, v) in units of the part's long side, so the same part can
be drawn at any size. A shape draws its own variation from the generator it is given, in an order that does
not depend on the size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from trt_blendmask.conveyor.relief import (
    METALS,
    Grid,
    Relief,
    box,
    circle,
    depth_inside,
    edge,
    metal_of,
    pick,
    step,
)
from trt_blendmask.conveyor.rods import bolt, pin, spring


def hex_nut(g: Grid, rng: np.random.Generator) -> Relief:
    flat = 0.433
    bore = flat * rng.uniform(0.48, 0.62)
    lock = rng.random() < 0.22
    metal = metal_of(rng)
    nylon = pick(rng, ("nylon_blue", "nylon_white"), (0.6, 0.4))
    thick, dish = rng.uniform(0.24, 0.4), rng.uniform(0.4, 0.62)
    r = cv2.magnitude(g.u, g.v)
    c, s = np.float32(0.5), np.float32(0.8660254)
    hexagon = np.maximum(np.abs(g.v), np.maximum(np.abs(s * g.u + c * g.v), np.abs(s * g.u - c * g.v)))
    hexagon = hexagon - np.float32(flat)
    distance = np.maximum(np.maximum(hexagon, r - 0.488), np.float32(bore) - r)
    height = thick - np.maximum(r - 0.93 * flat, 0) * dish * 1.4
    height += 0.02 * edge(-hexagon, 0.03)
    sink = bore * 1.22
    thread = 0.010 * np.sin((r - bore) * np.float32(2 * np.pi / 0.026))
    height += np.where(r < sink, (r - sink) * 1.0 + thread, 0)
    region = None
    if lock:
        ring = np.float32(bore * 1.34) - r
        height = np.where(ring > 0, thick + 0.05 * edge(ring, 0.05) * edge(r - bore, 0.04), height)
        region = (ring > 0).astype(np.uint8)
    return Relief(distance, height.astype(np.float32), (metal, nylon), region, "ring", thick, thick)


def washer(g: Grid, rng: np.random.Generator) -> Relief:
    bore = rng.uniform(0.19, 0.33)
    kind = rng.random()
    metal = pick(rng, (*METALS, "copper"), (0.26, 0.16, 0.24, 0.1, 0.08, 0.08, 0.08))
    thick, cut = rng.uniform(0.05, 0.1), rng.uniform(0, 2 * np.pi)
    r = cv2.magnitude(g.u, g.v)
    depth = np.minimum(0.5 - r, r - np.float32(bore))
    height = thick * (0.6 + 0.4 * edge(depth, 0.035))
    if kind < 0.2:  # spring lock washer: a slanted cut
        across = g.u * np.float32(np.cos(cut)) + g.v * np.float32(np.sin(cut))
        along = g.v * np.float32(np.cos(cut)) - g.u * np.float32(np.sin(cut))
        slit = np.abs(along + 0.5 * (across - 0.37)) < 0.016
        height = np.where(slit & (across > 0), height - 0.09, height) + 0.05 * along * (across > 0)
    elif kind < 0.4:  # dished
        height = height + 0.18 * depth
    return Relief(-depth, height.astype(np.float32), (metal,), None, "ring", thick, thick)


def gear(g: Grid, rng: np.random.Generator) -> Relief:
    teeth = int(rng.integers(11, 25))
    if g.long_px < 40:
        teeth = 9 + teeth % 6
    bore = rng.uniform(0.085, 0.16)
    metal = pick(rng, (*METALS, "cast"), (0.28, 0.1, 0.12, 0.06, 0.22, 0.12, 0.1))
    web, holes, keyed = rng.random() < 0.6, rng.random() < 0.35, rng.random() < 0.5
    count, hub = int(rng.integers(4, 7)), bore + rng.uniform(0.06, 0.1)
    thick = rng.uniform(0.14, 0.26)
    r = cv2.magnitude(g.u, g.v)
    theta = np.arctan2(g.v, g.u)
    tall = 2.1 / (teeth + 2) * 0.5 * 1.9
    wave = np.clip(np.cos(theta * teeth) * 1.5 + 0.05, -1, 1)
    outline = np.float32(0.5 - tall / 2) + np.float32(tall / 2) * wave
    distance = np.maximum((r - outline) * 0.6, np.float32(bore) - r)
    if keyed:
        key = np.maximum(np.abs(g.v) - bore * 0.28, np.abs(g.u - bore) - bore * 0.38)
        distance = np.maximum(distance, -key)
    rim = 0.5 - tall - 0.075
    middle = (hub + rim) / 2
    if holes and rim - hub > 0.12:
        turn = np.abs(np.mod(theta, 2 * np.pi / count) - np.pi / count) * middle
        hole = np.float32((rim - hub) * 0.36) - cv2.magnitude(turn.astype(np.float32), r - middle)
        distance = np.maximum(distance, hole)
    distance = distance.astype(np.float32)
    height = thick * (0.75 + 0.25 * edge(depth_inside(distance, g.q), 0.022))
    if web:
        height -= 0.05 * step(hub, hub + 0.02, r) * (1 - step(rim - 0.02, rim, r))
    height += np.where(r < hub, 0.02, 0.0)
    return Relief(distance, height.astype(np.float32), (metal,), None, "ring", thick, thick)


def bracket(g: Grid, rng: np.random.Generator) -> Relief:
    kind, metal = rng.random(), pick(rng, (*METALS, "cast"), (0.25, 0.1, 0.3, 0.1, 0.06, 0.13, 0.06))
    width, other = rng.uniform(0.3, 0.46), rng.uniform(0.68, 0.98)
    share, count = rng.uniform(0.19, 0.26), int(rng.integers(2, 5))
    slotted, sunk, thick = rng.random() < 0.35, rng.random() < 0.3, rng.uniform(0.05, 0.09)
    fold = rng.uniform(-0.15, 0.2)
    u, v = g.u, g.v
    places: list[tuple[float, float]]
    if kind < 0.45:  # L plate: one arm along u, one along v, meeting at the lower left
        arm = width * 0.82
        du, dv = u + 0.5 - arm / 2, v - (other / 2 - arm / 2)
        one = box(u, dv, 0.5, arm / 2, arm * 0.22)
        two = box(du, v, arm / 2, other / 2, arm * 0.22)
        distance = np.minimum(one, two)
        y = other / 2 - arm / 2
        places = [(0.5 - arm / 2, y), (-0.5 + arm / 2, -other / 2 + arm / 2)]
        places += [(-0.5 + arm / 2, y), ((0.0 if count > 3 else 0.06), y)][: count - 2]
        radius = arm * share
    else:
        corner = width * (0.5 if kind > 0.8 else 0.16)
        distance = box(u, v, 0.5, width / 2, corner)
        out = 0.5 - width * (0.6 if slotted else 0.45)
        places = [(-out, 0.0), (out, 0.0), (-0.12, 0.0), (0.14, 0.0)][: max(2, min(count, 4))]
        radius = min(width * share * 1.1, 0.3 / count)
    holes = np.full(u.shape, 9.0, np.float32)
    for index, (a, b) in enumerate(places):
        long = radius * 0.8 if slotted and index == 0 and kind >= 0.45 else 0.0
        du = np.maximum(np.abs(u - np.float32(a)) - np.float32(long), 0)
        holes = np.minimum(holes, cv2.magnitude(du, v - np.float32(b)) - np.float32(radius))
    distance = np.maximum(distance, -holes).astype(np.float32)
    height = thick * (0.5 + 0.5 * edge(depth_inside(distance, g.q), 0.025))
    if sunk:
        height -= np.maximum(radius * 0.55 - holes, 0) * 0.7
    if 0.45 <= kind < 0.7:  # bent: the far leaf rises from the fold
        rise = u - np.float32(fold)
        height += 0.32 * (np.sqrt(rise * rise + 0.0016) + rise) * 0.5
    return Relief(distance, height.astype(np.float32), (metal,), None, "u", thick, thick)


def o_ring(g: Grid, rng: np.random.Generator) -> Relief:
    tube = 0.25 * rng.uniform(0.25, 0.38)
    oval, lobe = rng.uniform(0.0, 0.05), rng.uniform(0, 2 * np.pi)
    rubber = pick(rng, ("rubber_black", "rubber_orange", "rubber_blue"), (0.52, 0.28, 0.20))
    r = cv2.magnitude(g.u, g.v)
    ripple = np.cos(2 * np.arctan2(g.v, g.u) + np.float32(lobe)) if g.long_px > 20 else 0.0
    across = r - np.float32(0.5 - tube - oval / 2) - np.float32(oval / 2) * ripple
    height = tube + circle(tube * tube, across)
    distance = np.abs(across) - np.float32(tube)
    return Relief(distance.astype(np.float32), height.astype(np.float32), (rubber,), None, "", 0.0, 2 * tube)


def bearing(g: Grid, rng: np.random.Generator) -> Relief:
    bore = rng.uniform(0.15, 0.23)
    kind = rng.random()
    seal = pick(rng, ("rubber_black", "rubber_orange", "rubber_blue"), (0.5, 0.25, 0.25))
    balls, thick = int(rng.integers(7, 11)), rng.uniform(0.2, 0.3)
    ring, turn = rng.uniform(0.2, 0.28), rng.uniform(0, 2 * np.pi)
    span = 0.5 - bore
    inner, outer = bore + ring * span, 0.5 - ring * span
    r = cv2.magnitude(g.u, g.v)
    depth = np.minimum(0.5 - r, r - np.float32(bore))
    gap = np.minimum(r - np.float32(inner), np.float32(outer) - r)
    height = thick - 0.03 * (1 - edge(depth, 0.035))
    height -= 0.06 * (1 - edge(-gap, 0.015)) * (gap > -0.015)
    region = (gap > 0).astype(np.uint8)
    names: tuple[str, ...]
    if kind < 0.4:  # rubber seal
        names = ("bright", seal)
        height = np.where(gap > 0, thick - 0.035 + 0.02 * edge(gap, 0.03), height)
    elif kind < 0.65:  # metal shield with a crimped lip
        names = ("bright", "zinc")
        lip = 0.02 * np.exp(-(((r - outer + 0.02) / 0.012) ** 2))
        height = np.where(gap > 0, thick - 0.03 + lip - 0.1 * (outer - r), height)
    else:  # open, balls in a cage
        names = ("bright", "black_oxide", "bright" if kind < 0.85 else "brass")
        middle, reach = (inner + outer) / 2, (outer - inner) * 0.46
        theta = np.arctan2(g.v, g.u) + np.float32(turn)
        along = (np.mod(theta, 2 * np.pi / balls) - np.pi / balls) * middle
        from_ball = cv2.magnitude(along.astype(np.float32), r - np.float32(middle))
        ball = from_ball < reach
        cage = (np.abs(r - np.float32(middle)) < reach * 0.55) & ~ball
        height = np.where(gap > 0, thick - 0.14, height)
        height = np.where(cage, thick - 0.08, height)
        height = np.where(ball, thick - 0.14 + circle(reach * reach, from_ball), height)
        region = np.where(ball, 0, np.where(cage, 2, region)).astype(np.uint8)
    return Relief(-depth, height.astype(np.float32), names, region, "ring", thick, thick)


def wing_nut(g: Grid, rng: np.random.Generator) -> Relief:
    hub, bore = rng.uniform(0.175, 0.215), rng.uniform(0.095, 0.125)
    metal = pick(rng, (*METALS, "cast"), (0.2, 0.12, 0.28, 0.1, 0.16, 0.08, 0.06))
    wide, lean = rng.uniform(0.105, 0.15), rng.uniform(-0.35, 0.35)
    bend = rng.uniform(0.0, 0.09)
    thick, rise = rng.uniform(0.2, 0.3), rng.uniform(0.2, 0.6)
    r = cv2.magnitude(g.u, g.v)
    far = np.abs(g.u)
    y = g.v + np.float32(bend) - np.float32(lean * 0.25) * g.u
    lobe = cv2.magnitude((far - np.float32(0.5 - wide)) * 1.0, y) - np.float32(wide)
    neck = np.maximum(np.abs(y) - 0.055 - 0.16 * np.maximum(far - 0.15, 0), far - 0.4)
    blade = -np.log(np.exp(-lobe * 28) + np.exp(-np.minimum(neck, 2) * 28)) / 28
    outline = -np.log(np.exp(-blade * 28) + np.exp(-(r - np.float32(hub)) * 28)) / 28
    distance = np.maximum(outline + 0.012, np.float32(bore) - r).astype(np.float32)
    depth = depth_inside(distance, g.q)
    wing = 0.12 + rise * 0.3 * far + 0.09 * edge(depth, 0.085)
    collar = thick + 0.03 * edge(hub - r, 0.05) * edge(r - bore, 0.03)
    height = np.where(r < hub, np.maximum(collar, wing * 0.6), wing)
    sink = bore * 1.2
    height = np.where(r < sink, height + (r - sink) * 0.9, height)
    height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), max(0.012 * g.q, 0.6))
    return Relief(distance, np.asarray(height, np.float32), (metal,), None, "", thick * 0.5, thick)


Shape = Callable[[Grid, np.random.Generator], Relief]
# In the order of CLASS_NAMES.
SHAPES: tuple[Shape, ...] = (
    hex_nut, washer, bolt, gear, bracket, spring, o_ring, bearing, pin, wing_nut,
)  # fmt: skip
# How far each class reaches to the side of its long axis, at most, in units of the long side.
HALF_WIDTHS = (0.5, 0.5, 0.29, 0.5, 0.5, 0.26, 0.5, 0.5, 0.22, 0.27)
