"""From a float network and pictures to the range of each activation that INT8 inference quantises."""

from __future__ import annotations

from trt_blendmask.calibrate.operation import CalibrationReport, calibrate
from trt_blendmask.calibrate.store import histograms_beside, read_histograms
from trt_blendmask.calibrate.table import cache_header, cache_text, graph_sha256, read_table, write_table
from trt_blendmask.calibrate.threshold import METHODS

__all__ = [
    "METHODS",
    "CalibrationReport",
    "cache_header",
    "cache_text",
    "calibrate",
    "graph_sha256",
    "histograms_beside",
    "read_histograms",
    "read_table",
    "write_table",
]
