"""Activations of one picture, whatever batch the model takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.quantize.half_graphs import small_model
from trt_blendmask.calibrate.network import Network
from trt_blendmask.quantize.files import read_deployable


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_counts_as_one_picture(batch: int, tmp_path: Path) -> None:
    model = onnx.load(small_model(tmp_path / "model.onnx", gain=2.0))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    row = next(tensor for tensor in model.graph.initializer if tensor.name == "row")
    row.CopyFrom(onnx.numpy_helper.from_array(np.array([batch, 3, 8, 4]), "row"))
    image = np.random.default_rng(0).integers(0, 256, (8, 4, 3), np.uint8)
    spec = read_deployable(tmp_path / "model.onnx").spec
    network = Network(model, spec, ("large",))
    seen = network.activations(*network.letterbox(image))["large"]
    assert seen.shape == (1, 1, 8, 4)
    planes = image.reshape(-1).astype(np.float32).reshape(1, 3, 8, 4)  # the small graph only reshapes
    np.testing.assert_allclose(seen, 2 * planes.sum(axis=1, keepdims=True))
