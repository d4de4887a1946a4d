"""The tables in calibration/ are those of the models that they are for."""

from __future__ import annotations

from tests.conftest import ROOT
from trt_blendmask.bundled import bundled_model
from trt_blendmask.calibrate import graph_sha256, read_table
from trt_blendmask.quantize.files import read_deployable
from trt_blendmask.quantize.plan import read_plan


def test_the_bundled_model_has_its_table() -> None:
    """If this fails, the network was changed: make the table again with `sh calibration/conveyor.sh`."""
    model = read_deployable(bundled_model()).model
    table = read_table(ROOT / "calibration" / "conveyor.json", graph_sha256(model))
    assert table.ranges.keys() == set(read_plan(model).tensors)
    assert len(table.images) == 512
