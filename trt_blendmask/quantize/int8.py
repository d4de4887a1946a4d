"""A float deployable graph and a calibration table in, a graph with explicit INT8 out (QuantizeLinear, QDQ)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, version_converter

from trt_blendmask.errors import DataError, first_line
from trt_blendmask.quantize.bias_correction import measure_means, shift_of
from trt_blendmask.quantize.fold import fold_affine
from trt_blendmask.quantize.place import place
from trt_blendmask.quantize.plan import Plan, read_plan
from trt_blendmask.quantize.weights import CODES, QuantisedWeight, half_scale, quantise_weight
from trt_blendmask.structures import U8, CalibrationTable, ModelSpec
from trt_blendmask.surgery.reading.opset import opset_of

OPSET, IR_VERSION = 19, 9  # the first in which Q and DQ work on half precision
_CALIBRATE = "Type: trt-blendmask calibrate MODEL --images DIR -o table.json"


@dataclass(frozen=True)
class Prepared:
    """All that does not depend on which layers stay float.

    Attributes:
        model: the float graph, its norms folded, in the opset of the quantised one.
        plan: for all layers. scales: step of each of its tensors.
        weights: by name of the constant. biases: corrected, by the convolution's name.
    """

    model: onnx.ModelProto
    plan: Plan
    scales: Mapping[str, float]
    weights: Mapping[str, QuantisedWeight]
    biases: Mapping[str, npt.NDArray[np.float32]]


def quantize_int8(model: onnx.ModelProto, table: CalibrationTable, keep_float: Collection[str] = ()) -> onnx.ModelProto:
    """The graph with INT8 convolutions where the plan says; all else stays float32 (`type_half` makes it half).

    Args:
        keep_float: names of convolutions that stay float.

    Raises:
        DataError: a range is missing from the table, or the graph has nothing to quantise.
    """
    return assemble_int8(prepare_int8(model, table), keep_float)


def prepare_int8(model: onnx.ModelProto, table: CalibrationTable) -> Prepared:
    """Fold, plan and quantise the weights: what takes the time of `quantize_int8`.

    Raises:
        DataError: as `quantize_int8`.
    """
    folded = fold_affine(model)
    plan = read_plan(folded)
    if not plan.layers:
        raise DataError("Expected convolutions to quantise behind the first one, but the graph has none.")
    missing = [name for name in plan.tensors if name not in table.ranges]
    if missing:
        raise DataError(
            f"Expected a range for each of {len(plan.tensors)} activations, but the table has none for '{missing[0]}'"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}. {_CALIBRATE}"
        )
    constants = {tensor.name: tensor for tensor in folded.graph.initializer}
    weights = {
        name: quantise_weight(numpy_helper.to_array(constants[name]))
        for name in dict.fromkeys(layer.weight for layer in plan.layers)
    }
    scales = {
        name: float(half_scale(max(table.ranges[member] for member in group) / CODES))
        for group in plan.groups
        for name in group
    }
    return Prepared(_raised(folded), plan, scales, weights, {})


def correct_biases(prepared: Prepared, spec: ModelSpec, images: Iterable[U8]) -> Prepared:
    """The same with biases that make up for the mean error of rounding, see `bias_correction`.

    Args:
        images: uint8 [H, W, 3] BGR, at least one.
    """
    means = measure_means(prepared.model, spec, prepared.plan, prepared.scales, images)
    constants = {tensor.name: tensor for tensor in prepared.model.graph.initializer}
    nodes = {node.name: node for node in prepared.model.graph.node}
    biases = {}
    for layer in prepared.plan.layers:
        weight, inputs = numpy_helper.to_array(constants[layer.weight]), nodes[layer.name].input
        before = numpy_helper.to_array(constants[inputs[2]]) if len(inputs) > 2 and inputs[2] else np.float32(0)
        biases[layer.name] = before + shift_of(weight, prepared.weights[layer.weight].values, means[layer.activation])
    return Prepared(prepared.model, prepared.plan, prepared.scales, prepared.weights, biases)


def assemble_int8(prepared: Prepared, keep_float: Collection[str] = ()) -> onnx.ModelProto:
    """The quantised graph, in which the convolutions `keep_float` stay float."""
    plan = read_plan(prepared.model, keep_float)
    model = onnx.ModelProto()
    model.CopyFrom(prepared.model)
    place(model, plan, prepared.scales, prepared.weights, prepared.biases)
    return model


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    if opset_of(model) < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # its C++ side raises several kinds
            raise DataError(
                f"Expected a graph that goes from opset {opset_of(model)} to {OPSET}, but: {first_line(error)[:200]}"
            ) from error
    model.ir_version = max(model.ir_version, IR_VERSION)
    del model.graph.value_info[:]  # their types will not hold
    return model
