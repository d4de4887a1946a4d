"""Rounding shifts the mean of what a convolution makes; its bias takes that back, at no cost at run time.

Per output channel the shift is E[W x] - E[Wq xq], where Wq and xq are what the codes stand for (arXiv 1906.04721,
section 4.2, with the means measured on pictures instead of taken from batch norm). It needs no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from trt_blendmask.calibrate.network import Network
from trt_blendmask.quantize.plan import Plan
from trt_blendmask.structures import F32, F64, U8, ModelSpec

PICTURES = 16  # means settle quickly


@dataclass(frozen=True)
class Mean:
    """Of an activation [N, C, h, w]: float64 [C] as it is and as INT8 has it."""

    exact: F64
    quantised: F64


def measure_means(
    model: onnx.ModelProto, spec: ModelSpec, plan: Plan, scales: Mapping[str, float], images: Iterable[U8]
) -> dict[str, Mean]:
    """Means of what each of the plan's layers reads in the float `model`, by tensor; pictures weigh alike.

    Args:
        scales: step of each activation.
        images: uint8 [H, W, 3] BGR, at least one.
    """
    names = tuple(dict.fromkeys(layer.activation for layer in plan.layers))
    network = Network(model, spec, names)
    exact: dict[str, list[F64]] = {name: [] for name in names}
    quantised: dict[str, list[F64]] = {name: [] for name in names}
    for image in images:
        for name, values in network.activations(*network.letterbox(image)).items():
            exact[name].append(values.mean((0, 2, 3), dtype=np.float64))
            codes = np.clip(np.rint(values / np.float32(scales[name])), -128, 127)
            quantised[name].append(codes.mean((0, 2, 3), dtype=np.float64) * scales[name])
    return {name: Mean(np.mean(exact[name], axis=0), np.mean(quantised[name], axis=0)) for name in names}


def shift_of(weight: F32, quantised: F32, mean: Mean) -> F32:
    """E[W x] - E[Wq xq] of each output channel, float32 [O], for weights [O, C / groups, kh, kw].

    At the padded border, too, x counts as having its mean.
    """
    per_input, per_input_quantised = (w.sum((2, 3), dtype=np.float64) for w in (weight, quantised))
    groups = len(mean.exact) // weight.shape[1]

    def products(rows: F64, means: F64) -> F64:
        parts = zip(np.split(rows, groups), np.split(means, groups), strict=True)
        return np.concatenate([part @ values for part, values in parts])

    return np.asarray(products(per_input, mean.exact) - products(per_input_quantised, mean.quantised), np.float32)
