"""Masks on pictures, in Python: python samples/01_pictures.py [IMAGE ...]

Without a picture it renders one. What comes back per picture is a `Detections`: boxes in frame pixels, scores,
classes, and one small box-local mask each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trt_blendmask
from trt_blendmask.runtime.images import read_image
from trt_blendmask.synthetic import render_scene

model = trt_blendmask.load(trt_blendmask.bundled_model())
for image in [read_image(Path(name)) for name in sys.argv[1:]] or [render_scene(seed=7, index=0).image]:
    detections = model(image).above(0.5)
    print(f"{len(detections)} parts in a picture of {detections.frame_wh}")
    for item in detections.to_coco():
        x, y, w, h = item["bbox"]
        print(f"  {item['category_name']:9s} {item['score']:.2f}  at ({x:.0f}, {y:.0f}), {w:.0f} x {h:.0f} px")
