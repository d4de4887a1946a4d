"""The tail's interpolation matrices against torch's interpolate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trt_blendmask.surgery.tail_native import interpolation_matrix


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(("m", "r"), [(7, 56), (14, 56), (5, 28), (28, 14), (3, 7), (6, 9), (1, 4)])
def test_interpolation_is_torchs(m: int, r: int, mode: str) -> None:
    grid = np.random.default_rng(m * r).standard_normal((1, 1, m, m)).astype(np.float32)
    corners = {"align_corners": False} if mode == "bilinear" else {}
    wanted = torch.nn.functional.interpolate(torch.from_numpy(grid), (r, r), mode=mode, **corners)[0, 0].numpy()
    matrix = interpolation_matrix(m, r, mode)
    np.testing.assert_allclose(matrix.T @ grid[0, 0] @ matrix, wanted, rtol=0, atol=3e-6)
