"""Random calls of the operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.plugin.twins import Case


def random_case(seed: int, k: int = 4, m: int = 7, r: int = 14, n: int = 1, d: int = 6, **options: Any) -> Case:
    """Boxes of all sizes in and around 100 x 120 pixels; the last slot of each image is empty where d > 2."""
    rng = np.random.default_rng(seed)
    hw = options.pop("bases_hw", (25, 30))
    options.setdefault("count", [d - (d > 2)] * n)
    bases = 2 * rng.standard_normal((n, k, *hw))
    attention = 2 * rng.standard_normal((n, d, k * m * m))
    return Case(bases.astype(np.float32), random_boxes(rng, n, d, hw), attention.astype(np.float32), r, **options)


def random_boxes(rng: np.random.Generator, n: int, d: int, bases_hw: tuple[int, int]) -> Any:
    """xyxy float32 [n, d, 4]; some reach far beyond the image, some are empty or inverted."""
    size = 4 * np.array(bases_hw[::-1])
    low = rng.uniform(-0.3, 1.1, (n, d, 2)) * size
    extent = rng.choice([0.02, 0.2, 1.0], (n, d, 1)) * rng.uniform(-0.1, 1, (n, d, 2)) * size
    return np.concatenate([low, low + extent], axis=2).astype(np.float32)


def spoiled_at_the_edge(**options: Any) -> tuple[Case, Case]:
    """A box far over the lower right corner, and the same with the first row and column of the bases not finite."""
    case = random_case(8, d=1, **options)
    case = replace(case, boxes=np.array([[(60, 50, 200, 180)]], np.float32))
    bases = case.bases.copy()
    bases[..., 0, :], bases[..., :, 0] = np.nan, np.inf
    return case, replace(case, bases=bases)


ODD_BOXES: dict[str, tuple[float, ...]] = {
    "NaN": (np.nan,) * 4,
    "one NaN": (0, np.nan, 30, 30),
    "infinite": (-np.inf, -np.inf, np.inf, np.inf),
    "half infinite": (0, 0, np.inf, 30),
    "huge": (-3e38, 0, 3e38, 30),
    "far outside": (1e9, 1e9, 1e9 + 64, 1e9 + 64),
    "far inverted": (1e30, 5, -1e30, 20),
    "inverted": (60, 60, 20, 20),
    "a point": (33, 41, 33, 41),
    "no height": (10, 20, 90, 20),
    "the image": (0, 0, 120, 100),
    "far over the border": (-900, -700, 1100, 800),
}
NOWHERE = ("NaN", "one NaN", "infinite", "half infinite", "far outside")  # all or a cross of samples count 0
