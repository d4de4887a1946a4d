"""Deformable 3x3 convolution, with mask (DCNv2, arXiv 1811.11168) or without (DCNv1, arXiv 1703.06211).

An ordinary 3x3 convolution predicts an offset for each tap at each place, and DCNv2 a weight in (0, 1) too. The taps
read the input bilinearly there; beyond its border it counts as 0, as in detectron2's and torchvision's kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError
from trt_blendmask.export.layers import Conv, GraphBuilder
from trt_blendmask.structures import F32

KERNEL, TAPS = 3, 9


@dataclass(frozen=True)
class Deform:
    """Where the offsets come from.

    Attributes:
        key: of the convolution that predicts, per group and tap (row-major), dy and dx in input pixels; then, where
            `modulated`, per group and tap the logit of the weight: 18 or 27 channels a group.
        groups: into how many groups of channels, each with offsets of its own, the input is cut.
    """

    key: str
    groups: int
    modulated: bool


def deform_conv_norm(
    builder: GraphBuilder, name: str, x: gs.Variable, conv: Conv, deform: Deform, shared: str = ""
) -> gs.Variable:
    """`GraphBuilder.conv_norm` for a deformable convolution: as DeformConv, or as GridSample and a 1x1 convolution."""
    if x.shape[1] % deform.groups:
        raise DataError(f"'{name}' has {x.shape[1]} channels, which {deform.groups} groups cannot share ({conv.why}).")
    shared = shared or name
    weight, bias = builder.folded(name, conv, x.shape[1])
    offsets, mask = _offsets(builder, name, x, conv, deform, shared)
    if builder.deform_op:
        y = _as_op(builder, name, x, conv, deform, (weight, bias), (offsets, mask), shared)
    else:
        samples = _samples(builder, name, x, conv, deform, offsets, mask)
        flat = weight.reshape(len(weight), -1, 1, 1)  # a row's order is that of the samples: channel, tap
        y = builder.conv(name, samples, Conv(conv.key, conv.channels, 1, conv.why, 1, conv.groups), flat, bias, shared)
    return builder.normed(name, y, conv, shared)


def _offsets(
    builder: GraphBuilder, name: str, x: gs.Variable, conv: Conv, deform: Deform, shared: str
) -> tuple[gs.Variable, gs.Variable | None]:
    """Offsets [N, 18 * groups, h, w] and weights [N, 9 * groups, h, w] of the taps.

    In pairs (dy, dx) for DeformConv; for GridSample, per group all dx, then all dy.
    """
    count = 2 * TAPS * deform.groups
    total = count + (TAPS * deform.groups if deform.modulated else 0)
    weight = builder.weights.take(f"{deform.key}.weight", (total, x.shape[1], KERNEL, KERNEL), conv.why)
    bias = builder.weights.take(f"{deform.key}.bias", (total,), conv.why)
    if not builder.deform_op:
        order = np.arange(count).reshape(-1, TAPS, 2).transpose(0, 2, 1)[:, ::-1].ravel()  # (dy, dx) pairs to dx, dy
        order = np.concatenate([order, np.arange(count, total)])
        weight, bias = weight[order], bias[order]
    predict = Conv(deform.key, total, KERNEL, conv.why, conv.stride)
    raw = builder.conv(f"{name}_offset", x, predict, weight, bias, f"{shared}_offset")
    if not deform.modulated:
        return raw, None
    offsets, logits = builder.split(f"{name}_offset", raw, (count, total - count))
    return offsets, builder.node("Sigmoid", f"{name}.mask", [logits], logits.shape)


def _as_op(
    builder: GraphBuilder,
    name: str,
    x: gs.Variable,
    conv: Conv,
    deform: Deform,
    weights: tuple[F32, F32 | None],
    where: tuple[gs.Variable, gs.Variable | None],
    shared: str,
) -> gs.Variable:
    (weight, bias), (offsets, mask) = weights, where
    none = gs.Variable.empty()
    kernel = builder.constant(f"{shared}.weight", lambda: weight)
    shift = none if bias is None else builder.constant(f"{shared}.bias", lambda: bias)
    n, _, h, w = offsets.shape
    builder.macs += n * h * w * weight.size
    attrs: dict[str, object] = {
        "dilations": [1, 1],
        "group": conv.groups,
        "kernel_shape": [KERNEL] * 2,
        "offset_group": deform.groups,
        "pads": [KERNEL // 2] * 4,
        "strides": [conv.stride] * 2,
    }
    inputs = [x, kernel, offsets, shift, none if mask is None else mask]
    return builder.node("DeformConv", name, inputs, (n, conv.channels, h, w), attrs)


def _samples(
    builder: GraphBuilder,
    name: str,
    x: gs.Variable,
    conv: Conv,
    deform: Deform,
    offsets: gs.Variable,
    mask: gs.Variable | None,
) -> gs.Variable:
    """What the nine taps read: [N, 9 * C, h, w], the taps of a channel side by side.

    The taps lie below one another in one tall grid [N, 9 * h, w], so that one GridSample reads them all and no
    transposition is needed after it. align_corners 0 is exact for every size and the form that runtimes are fast at.
    """
    (n, channels, in_h, in_w), (_, _, h, w), groups = x.shape, offsets.shape, deform.groups
    tall = TAPS * h
    form = f"{h}x{w}_from_{in_h}x{in_w}_groups_{groups}"
    scale = builder.constant(
        f"deform.scale_{form}",
        lambda: np.tile(np.repeat(np.array([2 / in_w, 2 / in_h], np.float32), TAPS), groups).reshape(-1, 1, 1),
    )
    places = builder.constant(f"deform.places_{form}", lambda: _places((h, w), (in_h, in_w), conv.stride, groups))
    y = builder.node("Mul", f"{name}.offset.scale", [offsets, scale], offsets.shape)
    y = builder.node("Add", f"{name}.offset.places", [y, places], offsets.shape)
    y = builder.reshape(f"{name}.offset.tall", y, (n * groups, 2, tall, w))
    grid = builder.node("Transpose", f"{name}.grid", [y], (n * groups, tall, w, 2), {"perm": [0, 2, 3, 1]})
    if groups > 1:
        x = builder.reshape(f"{name}.groups", x, (n * groups, channels // groups, in_h, in_w))
    attrs: dict[str, object] = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0}
    shape = (n * groups, channels // groups, tall, w)
    y = builder.node("GridSample", f"{name}.samples", [x, grid], shape, attrs)
    if mask is not None:
        mask = builder.reshape(f"{name}.mask.tall", mask, (n * groups, 1, tall, w))
        y = builder.node("Mul", f"{name}.masked", [y, mask], shape)
    return builder.reshape(f"{name}.taps", y, (n, TAPS * channels, h, w))


def _places(size: tuple[int, int], of: tuple[int, int], stride: int, groups: int) -> npt.NDArray[np.float32]:
    """Where the taps lie without offsets, in GridSample's coordinates (-1 and 1 are the outer edges of the picture):
    [18 * groups, h, w], per group the nine x, then the nine y."""
    taps = np.arange(TAPS)
    rows = np.arange(size[0]) * stride + (taps // KERNEL - KERNEL // 2)[:, None]
    columns = np.arange(size[1]) * stride + (taps % KERNEL - KERNEL // 2)[:, None]
    y = np.broadcast_to(((2 * rows + 1) / of[0] - 1)[:, :, None], (TAPS, *size))
    x = np.broadcast_to(((2 * columns + 1) / of[1] - 1)[:, None, :], (TAPS, *size))
    return np.tile(np.concatenate([x, y]), (groups, 1, 1)).astype(np.float32)
