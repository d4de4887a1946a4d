"""The doctor beside the real TensorRT-RTX: its version, and our library in its plugin registry."""

from __future__ import annotations

from importlib import metadata

from trt_blendmask.doctor import examine
from trt_blendmask.engines.plugin import LIBRARY


def test_rtx_is_found_and_takes_the_plugin() -> None:
    rtx = next(flavor for flavor in examine().facts.tensorrt if flavor.flavor == "rtx")
    assert rtx.usable, rtx.problem
    assert rtx.version == metadata.version("tensorrt_rtx_cu13")
    assert rtx.plugin == ("loads" if LIBRARY.is_file() else "missing"), rtx.plugin_problem
