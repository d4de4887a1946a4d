"""The file that is written straight from arrays is the one that protobuf would write; memory stays small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.export import measure, published_shapes, write_checkpoint
from trt_blendmask.errors import DataError
from trt_blendmask.export.spill import Spill
from trt_blendmask.export.write import write_model


def model() -> onnx.ModelProto:
    """x + w without w."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"], "add")], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="p")


@pytest.mark.parametrize("count", [1, 127, 128, 20_000, 300_000])  # lengths of one to three bytes and more
def test_protobuf_reads_what_protobuf_would_write(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(count)
    weights = {
        "w": rng.standard_normal((2, 3)).astype(np.float32),
        "long": rng.standard_normal(count).astype(np.float32),
        "other order": np.asfortranarray(rng.standard_normal((4, 5), np.float32)),
        "shape": np.array([0, 32, -1], np.int64),
        "scalar": np.array(3, np.int64),
        "none": np.zeros((0, 4), np.float32),
        "ü": np.array([True, False]),
    }
    expected = model()
    expected.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in weights.items())
    size = write_model(model(), dict(weights), tmp_path / "a.onnx")
    assert size == (tmp_path / "a.onnx").stat().st_size
    got = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(got, full_check=True)
    for tensor, (name, values) in zip(got.graph.initializer, weights.items(), strict=True):
        assert tensor.name == name
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)
        assert numpy_helper.to_array(tensor).shape == values.shape
    del got.graph.initializer[:], expected.graph.initializer[:]
    assert got == expected


def test_more_than_protobuf_can_hold_is_refused(tmp_path: Path) -> None:
    huge = np.broadcast_to(np.float32(0), (1 << 29,))
    with pytest.raises(DataError, match="2 GiB"):
        write_model(model(), {"w": huge}, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_spilt_arrays_are_the_same() -> None:
    rng, spill = np.random.default_rng(0), Spill()
    arrays = [rng.standard_normal((n, 7)).astype(kind) for n in (1, 5000, 9000) for kind in (np.float32, np.float16)]
    arrays.append(np.broadcast_to(np.float32(2), (300, 300)))
    kept = [spill.keep(array) for array in arrays]
    for array, same in zip(arrays, kept, strict=True):
        assert same.dtype == array.dtype
        np.testing.assert_array_equal(same, array)


def test_memory_stays_below_the_checkpoint_times_two_and_a_half(tmp_path: Path) -> None:
    """float16 on disk, float32 in the ONNX: the weights alone would be twice the file."""
    write_checkpoint(tmp_path / "x.safetensors", published_shapes("550_R_50_3x"), half=True)
    found = measure(tmp_path / "x.safetensors", "550_R_50_3x", tmp_path / "raw.onnx")
    assert found["peak_rss"] <= 2 * found["checkpoint_bytes"]
    assert found["onnx_bytes"] > 1.9 * found["checkpoint_bytes"]
