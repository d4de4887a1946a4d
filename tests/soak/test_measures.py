"""The yardstick of the soak."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stream.measures import theil_sen


@pytest.mark.parametrize("slope", [0.0, 0.02, -3.0])
def test_the_slope_is_found_beneath_noise_and_outliers(slope: float) -> None:
    rng = np.random.default_rng(4)
    x = np.arange(120.0) * 5
    y = 300 + slope * x + rng.normal(0, 0.5, 120)
    y[[3, 60, 61]] += 500
    middle, low, high = theil_sen(x.tolist(), y.tolist())
    assert low < slope < high
    assert middle == pytest.approx(slope, abs=2e-3)
    assert high - low < 5e-3
