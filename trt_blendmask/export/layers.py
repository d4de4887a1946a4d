"""Graph building blocks on onnx-graphsurgeon: each call adds nodes and returns their output tensor.

Every tensor has a static shape; a node's output is named after the node, a shared weight after the layer without its
level. Names are those of the parts: "backbone.res3.0.conv1", "fpn.lateral4", "head.P3.share_tower.0", "basis.refine.0".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, TrtBlendMaskError, UsageError
from trt_blendmask.export.config import BATCH_NORMS, GROUP_NORMS
from trt_blendmask.export.weights import EPSILON, F32, Affine, Weights

GROUPS = 32  # of every group norm in AdelaiDet
MAX_TENSOR_BYTES = 1 << 31  # what ONNX Runtime, TensorRT and protobuf can all address in one tensor


@dataclass(frozen=True)
class Conv:
    """A convolution of the checkpoint: its key, output channels, square kernel, and the norm that follows it.

    `norm_key` is where the norm's vectors are; `why` names the YAML values that the shapes follow from.
    """

    key: str
    channels: int
    kernel: int
    why: str
    stride: int = 1
    groups: int = 1
    bias: bool = True
    norm: str = ""
    norm_key: str = ""


class GraphBuilder:
    """Collects the nodes of one graph; weights are made once per name and shared."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[gs.Node] = []
        self.macs = 0
        self._constants: dict[str, gs.Constant] = {}

    @property
    def parameters(self) -> int:
        """Numbers in all float constants."""
        return sum(c.values.size for c in self._constants.values() if c.values.dtype == np.float32)

    def check_names(self) -> None:
        """Raises TrtBlendMaskError if two nodes or two tensors have one name: a fault of this package."""
        tensors = [tensor.name for node in self.nodes for tensor in node.outputs] + list(self._constants)
        for names in ([node.name for node in self.nodes], tensors):
            if len(set(names)) != len(names):
                raise TrtBlendMaskError("The graph has two parts of one name. Please report this with the YAML.")

    def constant(self, name: str, make: Callable[[], npt.NDArray[np.generic]]) -> gs.Constant:
        """The constant of that name, made at the first call."""
        if name not in self._constants:
            self._constants[name] = gs.Constant(name, make())
        return self._constants[name]

    def node(
        self,
        op: str,
        name: str,
        inputs: list[gs.Tensor],
        shape: tuple[int, ...],
        attrs: dict[str, object] | None = None,
        output: str = "",
    ) -> gs.Variable:
        """Add a node with one float32 output of that shape, named like the node unless `output` is given."""
        if math.prod(shape) * 4 >= MAX_TENSOR_BYTES:
            raise UsageError(
                f"At this input size and batch the tensor '{name}' {list(shape)} would exceed 2 GiB: pass a smaller "
                "--input-size or --batch."
            )
        tensor = gs.Variable(output or name, np.float32, shape)
        self.nodes.append(gs.Node(op, name, attrs or {}, inputs, [tensor]))
        return tensor

    def conv_norm(self, name: str, x: gs.Variable, conv: Conv, shared: str = "", output: str = "") -> gs.Variable:
        """Convolution and its norm: batch norm is folded into the weights, group norm follows as nodes.

        Args:
            shared: the weights' name where several nodes share them; empty: the node's name.
            output: the tensor's name; empty: the node's name.
        """
        weights = self.weights
        if conv.norm in GROUP_NORMS and conv.channels % GROUPS:
            raise DataError(
                f"Group norm needs a multiple of {GROUPS} channels, but '{name}' has {conv.channels} ({conv.why})."
            )
        shape = (conv.channels, x.shape[1] // conv.groups, conv.kernel, conv.kernel)
        weight = weights.take(f"{conv.key}.weight", shape, conv.why)
        bias = weights.take(f"{conv.key}.bias", shape[:1], conv.why) if conv.bias else None
        if conv.norm in BATCH_NORMS:
            weight, bias = weights.fold(weight, bias, weights.batch_norm(conv.norm_key, conv.channels, conv.why))
        y = self.conv(name, x, conv, weight, bias, shared or name, output)
        if conv.norm in GROUP_NORMS:
            return self.group_norm(f"{name}.norm", y, conv.norm_key, conv.why, shared or name)
        return y

    def conv(
        self,
        name: str,
        x: gs.Variable,
        conv: Conv,
        weight: F32,
        bias: F32 | None,
        shared: str,
        output: str = "",
    ) -> gs.Variable:
        """A bare convolution with padding that keeps the size (divided by the stride, rounded up)."""
        n, channels, h, w = x.shape
        pad = conv.kernel // 2
        inputs = [x, self.constant(f"{shared}.weight", lambda: weight)]
        if bias is not None:
            values = bias
            inputs.append(self.constant(f"{shared}.bias", lambda: values))
        out_h, out_w = ((side + 2 * pad - conv.kernel) // conv.stride + 1 for side in (h, w))
        self.macs += n * conv.channels * out_h * out_w * (channels // conv.groups) * conv.kernel**2
        attrs: dict[str, object] = {
            "dilations": [1, 1],
            "group": conv.groups,
            "kernel_shape": [conv.kernel] * 2,
            "pads": [pad] * 4,
            "strides": [conv.stride] * 2,
        }
        return self.node("Conv", name, inputs, (n, conv.channels, out_h, out_w), attrs, output)

    def group_norm(self, name: str, x: gs.Variable, key: str, why: str, shared: str) -> gs.Variable:
        """GroupNorm as Reshape-InstanceNormalization-Reshape-Mul-Add: the form that TensorRT's parser maps to its own
        normalisation layer, and the only one that opset 17 has."""
        n, channels, h, w = x.shape
        gamma, beta = (self.weights.take(f"{key}.{part}", (channels,), why) for part in ("weight", "bias"))
        per_group = (n, GROUPS, channels // GROUPS * h * w)
        split = self.constant("group_norm.split", lambda: np.array([0, GROUPS, -1], np.int64))
        ones = self.constant("group_norm.ones", lambda: np.ones(GROUPS, np.float32))
        zeros = self.constant("group_norm.zeros", lambda: np.zeros(GROUPS, np.float32))
        back = self.constant(f"group_norm.join_{channels}x{h}x{w}", lambda: np.array([0, channels, h, w], np.int64))
        y = self.node("Reshape", f"{name}.split", [x, split], per_group)
        y = self.node("InstanceNormalization", name, [y, ones, zeros], per_group, {"epsilon": EPSILON})
        y = self.node("Reshape", f"{name}.join", [y, back], x.shape)
        return self.affine(name, y, Affine(gamma.astype(np.float64), beta.astype(np.float64)), f"{shared}.norm")

    def affine(self, name: str, x: gs.Variable, affine: Affine, shared: str) -> gs.Variable:
        """Per-channel scale and shift as Mul and Add, which runtimes fold into a convolution before them."""
        column = (affine.scale.size, 1, 1)
        scale = self.constant(f"{shared}.weight", lambda: affine.scale.astype(np.float32).reshape(column))
        shift = self.constant(f"{shared}.bias", lambda: affine.shift.astype(np.float32).reshape(column))
        y = self.node("Mul", f"{name}.scale", [x, scale], x.shape)
        return self.node("Add", f"{name}.shift", [y, shift], x.shape)

    def relu(self, name: str, x: gs.Variable, output: str = "") -> gs.Variable:
        return self.node("Relu", name, [x], x.shape, output=output)

    def add(self, name: str, a: gs.Variable, b: gs.Variable) -> gs.Variable:
        return self.node("Add", name, [a, b], a.shape)

    def max_pool(self, name: str, x: gs.Variable) -> gs.Variable:
        """3x3, stride 2, padding 1."""
        n, channels, h, w = x.shape
        attrs: dict[str, object] = {
            "ceil_mode": 0,
            "kernel_shape": [3, 3],
            "pads": [1] * 4,
            "strides": [2, 2],
        }
        return self.node("MaxPool", name, [x], (n, channels, (h - 1) // 2 + 1, (w - 1) // 2 + 1), attrs)

    def upsample(self, name: str, x: gs.Variable, factor: int, linear: bool) -> gs.Variable:
        """Enlarge by a whole factor: bilinear at half-pixel centres (align_corners False), or nearest."""
        n, channels, h, w = x.shape
        scales = self.constant(f"upsample.x{factor}", lambda: np.array([1, 1, factor, factor], np.float32))
        attrs: dict[str, object] = {
            "mode": "linear",
            "coordinate_transformation_mode": "half_pixel",
        }
        if not linear:
            attrs = {
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            }
        return self.node(
            "Resize",
            name,
            [x, gs.Variable.empty(), scales],
            (n, channels, h * factor, w * factor),
            attrs,
        )
