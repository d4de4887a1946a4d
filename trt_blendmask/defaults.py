"""What the command line and the library both take unless told otherwise; light, as `--help` imports it."""

from __future__ import annotations

SHOWN_SCORE = 0.5  # `predict` and `run` leave out what scores less
COUNTED_SCORE = 0.3  # where models are compared, a detection below it is not counted
GATES = ("f1", "box_iou", "mask_iou", "boundary_f")  # what `compare --fail-under` may bound
PERCENTILES = (50.0, 90.0, 95.0, 99.0)  # of times
