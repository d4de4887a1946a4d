"""The numbers of INT8: against a fake-quantising oracle in numpy, exact weights, folded norms, corrected means."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.quantize.networks import chain, deployable, model_of, run, table_of
from trt_blendmask import bundled_model, load
from trt_blendmask.agreement import compare_detections
from trt_blendmask.calibrate.network import Network
from trt_blendmask.errors import DataError
from trt_blendmask.quantize.fold import fold_affine
from trt_blendmask.quantize.fp16 import type_half
from trt_blendmask.quantize.int8 import assemble_int8, correct_biases, prepare_int8, quantize_int8
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.quantize.weights import half_scale, quantise_weight
from trt_blendmask.structures import CalibrationTable, ModelSpec
from trt_blendmask.surgery.reading.load import metadata
from trt_blendmask.synthetic import render_scene

F32 = npt.NDArray[np.float32]
SEED = np.random.default_rng(5)


def drawn(*shape: int) -> F32:
    return SEED.standard_normal(shape).astype(np.float32) / np.float32(np.prod(shape[1:]) ** 0.5)


def oracle(x: F32, weight: F32, step: float) -> F32:
    """A 3 x 3 convolution of what symmetric INT8 makes of both, the slow way, in float64 (padding 1)."""
    codes = np.clip(np.round(x.astype(np.float64) / step), -128, 127)
    steps = np.float64(half_scale(np.abs(weight).max(axis=(1, 2, 3)) / 127)).reshape(-1, 1, 1, 1)
    kernel = np.clip(np.round(weight / steps), -127, 127)
    padded = np.pad(codes[0], ((0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    sums = [
        (padded[:, y : y + h, z : z + w][None] * kernel[:, :, y : y + 1, z : z + 1]).sum(1)
        for y in range(3)
        for z in range(3)
    ]
    return np.asarray(np.sum(sums, axis=0) * step * steps.reshape(-1, 1, 1))[None].astype(np.float32)


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.5], ids="threshold {}".format)
def test_one_convolution_against_the_oracle(threshold: float) -> None:
    weights = [drawn(8, 3, 3, 3), drawn(6, 8, 3, 3), drawn(2, 6, 3, 3)]
    weights[1] = np.clip(weights[1], -0.2, 0.2)  # so that clipping more gains nothing
    model = chain(weights)
    x = SEED.standard_normal((1, 3, 9, 11)).astype(np.float32)
    quantised = quantize_int8(model, table_of(model, threshold))
    before, got = run(quantised, x, "r0", "c1")
    step = float(half_scale(threshold / 127))
    assert np.abs(got - oracle(before, weights[1], step)).max() < 2e-6
    for wrong in (step * 1.01, step * 127 / 128):  # the tolerance tells neighbouring grids apart
        assert np.abs(got - oracle(before, weights[1], wrong)).max() > 2e-4
    if threshold < np.abs(before).max():
        assert np.abs(got - run(model, x, "c1")[0]).max() > 1e-2  # and clipping shows


def test_first_and_last_convolution_are_exact() -> None:
    model = chain([drawn(8, 3, 3, 3), drawn(8, 8, 3, 3), drawn(4, 8, 1, 1)])
    quantised = quantize_int8(model, table_of(model))
    x = SEED.standard_normal((1, 3, 9, 11)).astype(np.float32)
    assert np.array_equal(run(model, x, "c0")[0], run(quantised, x, "c0")[0])
    names = {tensor.name: tensor for tensor in quantised.graph.initializer}
    assert np.array_equal(numpy_helper.to_array(names["w2"]), numpy_helper.to_array(model.graph.initializer[2]))


def test_weights_are_the_nearest_codes_on_a_grid_of_half_precision() -> None:
    weight = np.clip(drawn(16, 24, 3, 3), -0.12, 0.12) * np.logspace(-4, 2, 16, dtype=np.float32).reshape(-1, 1, 1, 1)
    quantised = quantise_weight(weight)
    assert quantised.codes.dtype == np.int8
    largest = np.abs(quantised.codes.astype(int)).reshape(16, -1).max(1)
    assert largest[0] < 127  # so small that half precision has no step for it
    assert largest[4:].min() >= 126
    assert np.array_equal(quantised.scales.astype(np.float16), quantised.scales)
    steps = quantised.scales.reshape(-1, 1, 1, 1)
    exact = quantised.scales > 2.0**-14  # below, a step is rounded by up to 3 %, and so is the largest weight
    assert (np.abs(quantised.values - weight) <= np.where(exact.reshape(-1, 1, 1, 1), 0.6, 4.5) * steps).all()


def test_a_smaller_threshold_only_where_it_gains() -> None:
    bulk = SEED.standard_normal((2, 16384)).astype(np.float32)
    bulk[1, 0] = 9.0  # one weight that costs the others their resolution
    quantised = quantise_weight(bulk.reshape(2, 4096, 2, 2))
    at_largest = half_scale(np.abs(bulk).max(1) / 127)
    assert quantised.scales[1] < 0.95 * at_largest[1]

    def error(scale: npt.NDArray[np.float32] | np.float32, row: F32) -> float:
        codes = np.clip(np.round(row.astype(np.float64) / scale), -127, 127)
        return float(((codes * np.float64(scale) - row) ** 2).sum())

    assert error(quantised.scales[1], bulk[1]) < 0.99 * error(at_largest[1], bulk[1])
    best = min(error(half_scale(a / 127), bulk[1]) for a in np.linspace(2, 9, 200))
    assert error(quantised.scales[1], bulk[1]) < 1.02 * best


def test_channels_of_zeros_and_of_tiny_weights_stay_finite() -> None:
    weight = np.zeros((3, 4, 1, 1), np.float32)
    weight[1], weight[2] = 1e-30, 1e-6
    quantised = quantise_weight(weight)
    assert np.isfinite(quantised.values).all()
    assert np.abs(quantised.values - weight).max() <= 1e-6


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), ()], ids=str)
def test_scale_and_shift_go_into_the_weights(shape: tuple[int, ...]) -> None:
    def vector(low: float) -> F32:
        return np.asarray(SEED.uniform(low, 2, shape), np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("Mul", ["s", "c"], ["m"], "scale"),
        helper.make_node("Add", ["m", "t"], ["a"], "shift"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    model = model_of(nodes, {"w": drawn(4, 3, 3, 3), "s": vector(-2), "t": vector(-2)}, (1, 3, 6, 6))
    folded = fold_affine(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Relu"]
    assert folded.graph.node[0].output == ["a"]
    x = SEED.standard_normal((1, 3, 6, 6)).astype(np.float32)
    for before, after in zip(run(model, x, "a", "y"), run(folded, x, "a", "y"), strict=True):
        assert np.abs(before - after).max() < 1e-5


def test_a_batch_norm_goes_into_the_weights_and_shared_ones_are_parted() -> None:
    norm = {f"n{i}": np.asarray(SEED.uniform(0.5, 2, 4), np.float32) for i in range(4)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "n0", "n1", "n2", "n3"], ["m"], "norm", epsilon=1e-3),
        helper.make_node("Conv", ["x", "w", "b"], ["d"], "other"),
        helper.make_node("Add", ["m", "d"], ["y"], "add"),
    ]
    model = model_of(nodes, {"w": drawn(4, 3, 1, 1), "b": drawn(4), **norm}, (1, 3, 6, 6))
    folded = fold_affine(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Conv", "Add"]
    assert folded.graph.node[0].input[1] != folded.graph.node[1].input[1] == "w"
    x = SEED.standard_normal((1, 3, 6, 6)).astype(np.float32)
    assert np.abs(run(model, x, "y")[0] - run(folded, x, "y")[0]).max() < 1e-5


def test_what_is_read_twice_or_not_by_channel_is_not_folded() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Mul", ["c", "columns"], ["m"], "by_column"),
        helper.make_node("Conv", ["x", "w"], ["d"], "other"),
        helper.make_node("Mul", ["d", "s"], ["e"], "scale"),
        helper.make_node("Sum", ["m", "d", "e"], ["y"], "sum"),
    ]
    constants = {"w": drawn(4, 3, 1, 1), "columns": drawn(6), "s": drawn(4, 1, 1)}
    model = model_of(nodes, constants, (1, 3, 4, 6))
    assert [n.op_type for n in fold_affine(model).graph.node] == [n.op_type for n in nodes]


def test_group_norms_stay_and_per_level_norms_go(reference: Path, tmp_path: Path) -> None:
    grouped = deployable(reference, "rt_r50", tmp_path)
    assert len(fold_affine(grouped).graph.node) == len(grouped.graph.node)
    bundled = onnx.load(bundled_model())
    folded = fold_affine(bundled)
    assert len(bundled.graph.node) - len(folded.graph.node) == 2 * 9  # three levels of three convolutions
    assert not [n.name for n in folded.graph.node if re.search(r"norm\.(scale|shift)$", n.name)]
    x = SEED.integers(0, 256, [d.dim_value for d in bundled.graph.input[0].type.tensor_type.shape.dim], np.uint8)
    tensors = read_plan(bundled).end
    for before, after in zip(run(bundled, x, *tensors), run(folded, x, *tensors), strict=True):
        assert np.abs(before - after).max() < 1e-4 * max(1, np.abs(before).max())


@pytest.mark.parametrize("name", ["dla34_small", "bundled"])
def test_with_half_every_tensor_has_its_type(reference: Path, tmp_path: Path, name: str) -> None:
    model = onnx.load(bundled_model()) if name == "bundled" else deployable(reference, name, tmp_path)
    quantised = quantize_int8(model, table_of(model))
    type_half(quantised)
    onnx.checker.check_model(quantised, full_check=True)
    typed = onnx.shape_inference.infer_shapes(quantised, strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*typed.value_info, *typed.output, *typed.input)}
    kinds |= {tensor.name: tensor.data_type for tensor in typed.initializer}
    for node in typed.node:
        if node.op_type in ("Conv", "DequantizeLinear"):
            assert kinds[node.output[0]] == TensorProto.FLOAT16, node.name
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert [kinds[node.input[1]], kinds[node.input[2]]] == [TensorProto.FLOAT16, TensorProto.INT8], node.name
    assert {value.name: kinds[value.name] for value in model.graph.output} == {
        value.name: value.type.tensor_type.elem_type for value in model.graph.output
    }
    assert quantised.opset_import[0].version == 19


def test_the_corrected_bias_takes_the_mean_error_back() -> None:
    weights = [drawn(8, 3, 1, 1), drawn(12, 8, 1, 1), drawn(2, 12, 1, 1)]
    model = chain(weights, (32, 32))
    spec = replace(bundled_spec(), input_hw=(32, 32), input_dtype="float32")
    image = SEED.integers(0, 256, (32, 32, 3), np.uint8)
    network = Network(model, spec, ("r0", "c1"))
    x, box = network.letterbox(image)
    x = np.array(x)
    reference = network.activations(x, box)
    # Clipping a good part of the values shifts the means.
    prepared = prepare_int8(model, table_of(model, float(np.percentile(reference["r0"], 90))))
    corrected = correct_biases(prepared, spec, [image])
    shifts = [
        np.abs((run(assemble_int8(p), x, "c1")[0] - reference["c1"]).mean((0, 2, 3))).max()
        for p in (prepared, corrected)
    ]
    scale = float(np.abs(reference["c1"]).mean())
    assert shifts[0] > 0.02 * scale
    assert shifts[1] < 1e-3 * scale


def bundled_spec() -> ModelSpec:
    return ModelSpec.from_json(metadata(onnx.load(bundled_model())))


def test_the_bundled_model_finds_the_same_in_int8(tmp_path: Path) -> None:
    model = onnx.load(bundled_model())
    tensors = read_plan(model).tensors
    network = Network(model, bundled_spec(), tensors)
    seen = [
        {name: float(np.percentile(np.abs(v), 99.99)) for name, v in network.activations(*network.letterbox(i)).items()}
        for i in pictures(100, 4)
    ]
    ranges = {name: max(values[name] for values in seen) for name in tensors}
    quantised = quantize_int8(model, CalibrationTable("0" * 64, "percentile", ranges, (), {}))
    onnx.save(quantised, tmp_path / "int8.onnx")
    with load(bundled_model()) as exact, load(tmp_path / "int8.onnx") as int8:
        found = [(exact(image), int8(image)) for image in pictures(200, 6)]
    agreement = compare_detections([pair[0] for pair in found], [pair[1] for pair in found])
    assert sum(len(pair[0]) for pair in found) > 20
    assert agreement.f1 > 0.95
    assert agreement.mask_iou > 0.93


def pictures(seed: int, count: int) -> list[npt.NDArray[np.uint8]]:
    return [render_scene(seed, index).image for index in range(count)]


def test_a_table_without_a_tensor_is_refused() -> None:
    model = chain([drawn(8, 3, 3, 3), drawn(8, 8, 3, 3), drawn(4, 8, 1, 1)])
    table = CalibrationTable("0" * 64, "mse", {"other": 1.0}, (), {})
    with pytest.raises(DataError, match=r"the table has none for 'r0'.*trt-blendmask calibrate"):
        quantize_int8(model, table)


def test_a_graph_without_inner_convolutions_is_refused() -> None:
    model = chain([drawn(8, 3, 3, 3), drawn(4, 8, 1, 1)])
    table = CalibrationTable("0" * 64, "mse", {"r0": 1.0}, (), {})
    with pytest.raises(DataError, match="Expected convolutions to quantise"):
        quantize_int8(model, table)
