"""The bundled network at the size of a stamp, and pictures for it: each takes a few milliseconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.export import export_onnx
from trt_blendmask.surgery import operate


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deployable float model with an input of 64 x 96."""
    folder = tmp_path_factory.mktemp("small")
    raw = export_onnx(CHECKPOINT, CONFIG, folder / "raw.onnx", (64, 96)).output
    operate(raw, folder / "model.onnx")
    return folder / "model.onnx"


def picture(seed: int, wh: tuple[int, int] = (120, 68)) -> np.ndarray:
    """A soft coloured pattern and a few hard edges."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), wh, interpolation=cv2.INTER_CUBIC)
    x, y = rng.integers(5, 50, 2).tolist()
    return np.asarray(cv2.rectangle(image, (x, y), (x + 30, y + 12), rng.integers(0, 255, 3).tolist(), -1))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of three shapes."""
    place = tmp_path_factory.mktemp("pictures")
    for i in range(40):
        wh = ((120, 68), (60, 68), (96, 64))[i % 3]
        cv2.imwrite(str(place / f"{i}.png"), picture(i, wh))
    return place
