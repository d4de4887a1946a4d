"""Light, materials and shading of the synthetic conveyor parts (numpy and OpenCV only).

Shading looks up small "matcaps": images indexed by the surface normal that hold what an overhead camera
sees of a lit environment (soft boxes, ring light, dark surroundings) in a surface of that orientation.
One matcap per roughness is rendered for each scene, so a part costs a handful of ``cv2.remap`` calls.
All colours are linear BGR float32; lengths are supersampled pixels unless said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
MATCAP = 96
ROUGH_STEPS = (0.06, 0.16, 0.32, 0.6)


@lru_cache(maxsize=1)
def surface_tile() -> Array:
    """[512,512,2]: "cloud" and a fine "grain" beside each other, so that one look-up gives both."""
    fine = cv2.resize(np.tile(noise_tile("grain"), (2, 2)), (512, 512), interpolation=cv2.INTER_AREA)
    return np.dstack((noise_tile("cloud"), np.asarray(fine / fine.std(), np.float32)))


@lru_cache(maxsize=8)
def noise_tile(kind: str) -> Array:
    """A cached wrapping [512,512] noise image, zero mean and unit deviation: "grain", "cloud", "streak"."""
    rng = np.random.default_rng([20010309, sum(map(ord, kind))])
    white = rng.standard_normal((512, 512)).astype(np.float32)
    spectrum = np.fft.rfft2(white)
    fy = np.fft.fftfreq(512)[:, None] * 512
    fx = np.fft.rfftfreq(512)[None, :] * 512
    if kind == "grain":
        gain = np.exp(-((np.hypot(fx, fy) / 150.0) ** 2))
    elif kind == "cloud":
        gain = 1.0 / (1.0 + np.hypot(fx, fy)) ** 1.6 * (np.hypot(fx, fy) > 1.5)
    else:
        gain = np.exp(-((fx / 9.0) ** 2)) / (1.0 + np.abs(fy)) ** 0.25
    tile = np.fft.irfft2(spectrum * gain, s=(512, 512))
    tile -= tile.mean()
    return np.ascontiguousarray(tile / tile.std(), dtype=np.float32)


def sample_tile(tile: Array, x: Array, y: Array) -> Array:
    """Look a noise tile up at (x, y) in tile pixels; wraps."""
    found = cv2.remap(tile, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(found, dtype=np.float32)


@dataclass(frozen=True)
class Material:
    """Optical properties. ``reflect`` is the mirror colour, ``diffuse`` the matte colour (linear BGR)."""

    name: str
    reflect: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    roughness: float
    brush: float = 0.0
    rust: float = 0.0
    grain: float = 0.0


MATERIALS: dict[str, Material] = {
    m.name: m
    for m in (
        Material("steel", (0.60, 0.58, 0.56), (0.05, 0.05, 0.05), 0.18, brush=0.10, rust=0.15),
        Material("bright", (0.72, 0.70, 0.68), (0.03, 0.03, 0.03), 0.09, brush=0.03),
        Material("zinc", (0.56, 0.52, 0.48), (0.07, 0.07, 0.06), 0.26, brush=0.05, grain=0.05),
        Material("yellow_zinc", (0.34, 0.52, 0.62), (0.03, 0.07, 0.09), 0.22, brush=0.05),
        Material("brass", (0.20, 0.50, 0.72), (0.02, 0.05, 0.07), 0.16, brush=0.06),
        Material("copper", (0.28, 0.40, 0.70), (0.02, 0.04, 0.07), 0.18, brush=0.06),
        Material("black_oxide", (0.075, 0.070, 0.066), (0.016, 0.015, 0.014), 0.28, grain=0.03),
        Material("cast", (0.20, 0.20, 0.20), (0.09, 0.09, 0.09), 0.45, rust=0.3, grain=0.10),
        Material("rubber_black", (0.06, 0.06, 0.06), (0.017, 0.016, 0.015), 0.36, grain=0.02),
        Material("rubber_orange", (0.07, 0.07, 0.07), (0.03, 0.13, 0.50), 0.34, grain=0.02),
        Material("rubber_blue", (0.07, 0.07, 0.07), (0.32, 0.12, 0.035), 0.34, grain=0.02),
        Material("nylon_blue", (0.06, 0.06, 0.06), (0.30, 0.13, 0.04), 0.32),
        Material("nylon_white", (0.06, 0.06, 0.06), (0.42, 0.46, 0.48), 0.32),
    )
}


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: it holds arrays
class Rig:
    """The light of one scene: key direction (unit, towards the light, image axes, z to the camera)."""

    key: tuple[float, float, float]
    softness: float
    shadow: float
    mirrors: tuple[Array, ...]  # one [MATCAP,MATCAP,3] per ROUGH_STEPS
    matte: Array  # [MATCAP,MATCAP,3]


def make_rig(rng: np.random.Generator, belt_colour: Array) -> Rig:
    """Draw a lighting set-up; ``belt_colour`` [3] is what grazing reflections see."""
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.radians(rng.uniform(38, 66))
    key = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    axis = np.linspace(-1, 1, MATCAP)
    nx, ny = np.meshgrid(axis, axis)
    rim = np.hypot(nx, ny)
    scale = np.where(rim > 0.995, 0.995 / np.maximum(rim, 1e-6), 1.0)
    nx, ny = nx * scale, ny * scale
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 1e-4))
    # Mirror direction of a viewer straight above.
    rx, ry, rz = 2 * nz * nx, 2 * nz * ny, 2 * nz * nz - 1
    image = _environment(rng, (rx, ry, rz), key, azimuth, belt_colour)
    mirrors = tuple(np.asarray(cv2.GaussianBlur(image, (0, 0), MATCAP * 0.5 * r), np.float32) for r in ROUGH_STEPS)
    lambert = np.clip(nx * key[0] + ny * key[1] + nz * key[2], 0, 1)
    ambient = 0.20 + 0.28 * nz
    warm = np.array([0.97, 1.0, 1.03])
    matte = (ambient[..., None] + 0.95 * lambert[..., None] * warm).astype(np.float32)
    return Rig(
        key=(float(key[0]), float(key[1]), float(key[2])),
        softness=float(rng.uniform(0.10, 0.40)),
        shadow=float(rng.uniform(0.42, 0.72)),
        mirrors=mirrors,
        matte=matte,
    )


def smooth(low: float, high: float, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smooth step from 0 at ``low`` to 1 at ``high`` (which may be the smaller one)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _environment(
    rng: np.random.Generator,
    r: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]],
    key: npt.NDArray[np.float64],
    azimuth: float,
    belt_colour: Array,
) -> Array:
    rx, ry, rz = r
    ceiling = rng.uniform(0.12, 0.34)
    out = np.full((*rx.shape, 3), ceiling)
    out *= (0.55 + 0.45 * rz)[..., None]
    angle = rng.uniform(0, np.pi)
    out *= (1 + 0.5 * (rx * np.cos(angle) + ry * np.sin(angle)))[..., None]
    # The key soft box, with a sharp rectangular outline as seen in polished metal.
    side = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    up = np.cross(key, side)
    facing = rx * key[0] + ry * key[1] + rz * key[2]
    a = (rx * side[0] + ry * side[1]) / np.maximum(facing, 0.05)
    b = (rx * up[0] + ry * up[1] + rz * up[2]) / np.maximum(facing, 0.05)
    wide, tall = rng.uniform(0.35, 0.9), rng.uniform(0.25, 0.5)
    box = smooth(wide + 0.06, wide - 0.06, np.abs(a)) * smooth(tall + 0.06, tall - 0.06, np.abs(b))
    out += (box * (facing > 0.05) * rng.uniform(1.5, 2.6))[..., None] * np.array([0.96, 1.0, 1.03])
    if rng.random() < 0.55:  # ring light about the lens
        low = rng.uniform(0.62, 0.8)
        ring = smooth(low - 0.07, low, rz) * smooth(low + 0.16, low + 0.1, rz)
        out += (ring * rng.uniform(0.5, 1.3))[..., None]
    # A fill strip on the other side, cooler.
    fill = smooth(0.35, 0.8, -(rx * key[0] + ry * key[1]) / np.hypot(key[0], key[1]) * (rz > -0.2))
    out += (fill * rng.uniform(0.25, 0.7))[..., None] * np.array([1.05, 1.0, 0.95])
    # Bright field: what a flat face reflects is the surroundings of the lens itself.
    out += (smooth(0.88, 1.0, rz) * rng.uniform(0.0, 0.5))[..., None]
    horizon = smooth(0.15, -0.25, rz)[..., None]
    out = out * (1 - horizon) + horizon * (0.5 * belt_colour + 0.02)
    return np.asarray(out, np.float32)


def look_up(matcap: Array, nx: Array, ny: Array) -> Array:
    """Matcap colours [h,w,3] at unit-normal components nx, ny (each [h,w], -1..1)."""
    half = np.float32((MATCAP - 1) / 2)
    x, y = nx * half + half, ny * half + half
    # Tooling marks may lean past the rim: the last colour holds there.
    found = cv2.remap(matcap, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


@lru_cache(maxsize=64)
def response(rig: Rig, m: Material) -> Array:
    """What a material shows at each normal under a rig: a matcap [MATCAP,MATCAP,3]."""
    position = float(np.interp(m.roughness, ROUGH_STEPS, range(len(ROUGH_STEPS))))
    low = min(int(position), len(ROUGH_STEPS) - 2)
    weight = np.float32(position - low)
    shine = rig.mirrors[low] * (1 - weight) + rig.mirrors[low + 1] * weight
    axis = np.linspace(-1, 1, MATCAP, dtype=np.float32)
    rim = np.clip(axis[None] ** 2 + axis[:, None] ** 2, 0, 1)
    # Schlick: every surface turns mirror-like at grazing angles.
    reflect = np.array(m.reflect, np.float32)
    reflect = reflect + 0.25 * (1 - reflect) * (rim**4)[..., None]
    return np.asarray(shine * reflect + rig.matte * np.array(m.diffuse, np.float32), np.float32)


def times(colour: Array, factor: Array) -> Array:
    """Colours [h,w,C] times a field [h,w] (faster than broadcasting over a short last axis)."""
    return np.asarray(cv2.multiply(colour, cv2.merge([factor] * colour.shape[2])), np.float32)


def normals(height: Array, tilt: tuple[float, float]) -> tuple[Array, Array]:
    """Unit normals (x and y components) of a height field [h,w] in pixels, leaning by the slope ``tilt``."""
    gx = cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=1 / 32)
    nx = np.float32(tilt[0]) - gx
    ny = np.float32(tilt[1]) - gy
    nz = 1 / np.sqrt(1 + nx * nx + ny * ny)
    return nx * nz, ny * nz
