"""Makes conveyor_heads.npz: the head outputs of the bundled checkpoint by the PyTorch model of samples/conveyor.

    PYTHONPATH=. python tests/golden/make_conveyor_heads.py        (needs the extra `train`)

Kept as numbers, so that the exporter is compared with PyTorch on machines that have none. The picture is kept too, as
its bytes change with the versions of NumPy and OpenCV. Of the largest level every 8th column of top_feats is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from samples.conveyor.config import Config
from samples.conveyor.model import BlendMask, load_weights
from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.synthetic import render_scene

EVERY = 8


def main() -> None:
    image = render_scene(424242, 0).image
    config = Config.read(CONFIG)
    model = BlendMask(config).eval()
    load_weights(model, CHECKPOINT)
    mean = np.array(config.pixel_mean, np.float32)
    planes = torch.from_numpy((image - mean).transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        heads = {name: value.numpy() for name, value in model.raw_heads(planes).items()}
    heads["P3top_feats"] = heads["P3top_feats"][..., ::EVERY]
    np.savez_compressed(Path(__file__).parent / "conveyor_heads.npz", image=image, **heads)


if __name__ == "__main__":
    main()
