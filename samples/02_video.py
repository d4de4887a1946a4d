"""Count what goes by on a video: python samples/02_video.py [SOURCE]

SOURCE is a video file, a folder of pictures or `synthetic:conveyor`. `stream` decodes, letterboxes and infers frame by
frame; nothing is kept, so it runs for as long as the source does.
"""

from __future__ import annotations

import sys
from collections import Counter

import trt_blendmask

source = sys.argv[1] if len(sys.argv) > 1 else "synthetic:conveyor?seconds=1"
model = trt_blendmask.load(trt_blendmask.bundled_model())
for frame, detections in model.stream(source):
    seen = Counter(detections.class_names[index] for index in detections.above(0.5).classes)
    print(f"{frame.time_s:6.2f} s  " + ", ".join(f"{n} {name}" for name, n in seen.most_common()))
