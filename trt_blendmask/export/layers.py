"""Graph building blocks on onnx-graphsurgeon: each call adds nodes and returns their output tensor.

Every tensor has a static shape; a node's output is named after the node, a shared weight after the layer without its
level. Names are those of the parts: "backbone.res3.0.conv1", "fpn.lateral4", "head.P3.share_tower.0", "basis.refine.0".
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from trt_blendmask.errors import DataError, TrtBlendMaskError, UsageError
from trt_blendmask.export.norms import BATCH_NORMS, GROUP_NORMS
from trt_blendmask.export.spill import Spill
from trt_blendmask.export.weights import EPSILON, Affine, Weights
from trt_blendmask.structures import F32

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
    """Collects the nodes of one graph; weights are made once per name and shared.

    `deform_op`: deformable convolutions become DeformConv, not standard ops.
    """

    def __init__(self, weights: Weights, deform_op: bool = False) -> None:
        self.weights, self.deform_op = weights, deform_op
        self.nodes: list[gs.Node] = []
        self.macs = self.parameters = 0  # parameters: the numbers in all float constants
        self._constants: dict[str, gs.Constant] = {}
        self._by_content: dict[object, gs.Constant] = {}
        self._spill = Spill()

    def detach_constants(self) -> dict[str, npt.NDArray[np.generic]]:
        """Take the constants out of the nodes, which go on naming them; returns them in the order of their use."""
        detached: dict[str, npt.NDArray[np.generic]] = {}
        names: dict[str, gs.Variable] = {}
        for node in self.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant) and tensor.name not in detached:
                    detached[tensor.name], names[tensor.name] = tensor.values, gs.Variable(tensor.name)
                    tensor.values = np.empty(0)  # it lives on for a while, in a reference cycle
            node.inputs = [names[t.name] if isinstance(t, gs.Constant) else t for t in node.inputs]
        return detached

    def check_names(self) -> None:
        """Raises TrtBlendMaskError if two nodes or two tensors have one name: a fault of this package."""
        tensors = [tensor.name for node in self.nodes for tensor in node.outputs] + list(self._constants)
        for names in ([node.name for node in self.nodes], tensors):
            if len(set(names)) != len(names):
                raise TrtBlendMaskError("The graph has two parts of one name. Please report this with the YAML.")

    def constant(self, name: str, make: Callable[[], npt.NDArray[np.generic]]) -> gs.Constant:
        """The constant of that name, made at the first call; equal ones (biases that are all 0, say) are one."""
        if name not in self._constants:
            values = make()
            if not self.weights.fit:  # there will be no graph
                return gs.Constant(name, values)
            content = (values.dtype.str, values.shape, hashlib.sha256(np.ascontiguousarray(values).data).digest())
            if content not in self._by_content:
                self._by_content[content] = gs.Constant(name, self._spill.keep(values))
                self.parameters += values.size if values.dtype == np.float32 else 0
            self._constants[name] = self._by_content[content]
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
        weight, bias = self.folded(name, conv, x.shape[1])
        return self.normed(name, self.conv(name, x, conv, weight, bias, shared or name, output), conv, shared or name)

    def folded(self, name: str, conv: Conv, channels: int) -> tuple[F32, F32 | None]:
        """Weight and bias of the convolution of an input with `channels`, batch norm folded in."""
        weights = self.weights
        if conv.norm in GROUP_NORMS and conv.channels % GROUPS:
            raise DataError(
                f"Group norm needs a multiple of {GROUPS} channels, but '{name}' has {conv.channels} ({conv.why})."
            )
        if channels % conv.groups or conv.channels % conv.groups:
            raise DataError(f"'{name}' has {channels} channels, which {conv.groups} groups cannot share ({conv.why}).")
        shape = (conv.channels, channels // conv.groups, conv.kernel, conv.kernel)
        weight = weights.take(f"{conv.key}.weight", shape, conv.why)
        bias = weights.take(f"{conv.key}.bias", shape[:1], conv.why) if conv.bias else None
        if conv.norm in BATCH_NORMS:
            return weights.fold(weight, bias, weights.batch_norm(conv.norm_key, conv.channels, conv.why))
        return weight, bias

    def normed(self, name: str, x: gs.Variable, conv: Conv, shared: str) -> gs.Variable:
        """`x`, the output of `conv`, after the norm that could not be folded."""
        if conv.norm in GROUP_NORMS:
            return self.group_norm(f"{name}.norm", x, conv.norm_key, conv.why, shared)
        return x

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

    def reshape(self, name: str, x: gs.Variable, shape: tuple[int, ...]) -> gs.Variable:
        sizes = self.constant(f"shape.{'x'.join(map(str, shape))}", lambda: np.array(shape, np.int64))
        return self.node("Reshape", name, [x, sizes], shape)

    def split(self, name: str, x: gs.Variable, channels: tuple[int, ...]) -> list[gs.Variable]:
        """Along the channels; the outputs are `name` with .0, .1, ..."""
        n, _, h, w = x.shape
        sizes = self.constant(f"split.{'_'.join(map(str, channels))}", lambda: np.array(channels, np.int64))
        parts = [gs.Variable(f"{name}.{i}", np.float32, (n, c, h, w)) for i, c in enumerate(channels)]
        self.nodes.append(gs.Node("Split", f"{name}.split", {"axis": 1}, [x, sizes], parts))
        return parts

    def concat(self, name: str, tensors: list[gs.Variable]) -> gs.Variable:
        """Along the channels."""
        n, _, h, w = tensors[0].shape
        return self.node("Concat", name, list(tensors), (n, sum(t.shape[1] for t in tensors), h, w), {"axis": 1})

    def max_pool(self, name: str, x: gs.Variable, kernel: int, pad: int) -> gs.Variable:
        """Stride 2."""
        n, channels, h, w = x.shape
        attrs: dict[str, object] = {
            "ceil_mode": 0,
            "kernel_shape": [kernel] * 2,
            "pads": [pad] * 4,
            "strides": [2, 2],
        }
        out_h, out_w = ((side + 2 * pad - kernel) // 2 + 1 for side in (h, w))
        return self.node("MaxPool", name, [x], (n, channels, out_h, out_w), attrs)

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
