"""The same quantisation in the form that ONNX Runtime's CPU kernels take: every INT8 convolution makes codes.

TensorRT takes what follows a convolution into it; ONNX Runtime's QLinearConv must be followed by a QuantizeLinear at
once, or the convolution is computed in float. So here

- all codes are uint8, as a convolution's input and output must be of one type: TensorRT's plus 128 or, where a tensor
  cannot be negative, twice as fine ones from 0 on, in which the ReLU before is contained;
- what a convolution hands to a residual sum has codes too. Its range follows from that of the sum and of the shortcut:
  with x + shortcut cut off at `sum`, nothing beyond sum + shortcut can make a difference.

Processors without VNNI add two products of uint8 and int8 in 16 bits, which saturates for large codes: ONNX Runtime's
session option "session.x64quantprecision" = "1" avoids that there.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import helper, numpy_helper

_ZERO, _MIDDLE = "uint8.zero", "uint8.middle"
_FINER = 127 / 255  # the step of 0..255 by that of -128..127 with the same threshold
_KEEP_SIGN = {"MaxPool", "Concat", "Resize"}


def to_onnxruntime(model: onnx.ModelProto) -> None:
    """Change a graph of `quantize_int8`, in place; not for TensorRT, whose zero points are all 0 in int8."""
    _Rewriter(model.graph).write()


class _Rewriter:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.read_by: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.read_by[name].append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        self.gone: set[str] = set()
        self.behind: dict[str, list[onnx.NodeProto]] = {}  # new nodes, by the name of the one that they follow

    def write(self) -> None:
        for add in [node for node in self.graph.node if node.op_type == "Add"]:
            self._give_codes(add)
        for name, zero in ((_ZERO, 0), (_MIDDLE, 128)):
            self.constants[name] = numpy_helper.from_array(np.array(zero, np.uint8), name)
        signed = {node.input[1] for node in self.pairs if not self._is_positive(node.input[0])}
        for node in self.pairs:
            self._make_unsigned(node, node.input[1] in signed)
        nodes = [
            n for node in self.graph.node for n in (node, *self.behind.get(node.name, ())) if n.name not in self.gone
        ]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        used = {name for node in copies for name in node.input} | {value.name for value in self.graph.output}
        del self.graph.initializer[:]
        self.graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)

    def _is_positive(self, tensor: str) -> bool:
        maker = self.made_by.get(tensor)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return self._is_positive(self.made_by[maker.input[0]].input[0])
        if maker is None or maker.op_type not in _KEEP_SIGN:
            return maker is not None and maker.op_type == "Relu"
        data = maker.input if maker.op_type == "Concat" else maker.input[:1]
        return all(self._is_positive(name) for name in data)

    def _make_unsigned(self, node: onnx.NodeProto, signed: bool) -> None:
        """Give Q, and its DQ, codes from 0 to 255; without negative values let it contain the ReLU before."""
        scale, zero = node.input[1], _MIDDLE
        if not signed:
            scale, zero = self._add(f"{scale}.finer", self._value(scale) * _FINER), _ZERO
        for end in (node, *self.read_by[node.output[0]]):
            end.input[1], end.input[2] = scale, zero
        relu = self.made_by[node.input[0]]
        alone = len(self.read_by[node.input[0]]) == 1 and len(self.read_by[relu.input[0]]) == 1
        if not signed and relu.op_type == "Relu" and alone:
            node.input[0] = relu.input[0]
            self.gone.add(relu.name)

    def _give_codes(self, add: onnx.NodeProto) -> None:
        """Q and DQ between a convolution and the residual sum that it goes into."""
        makers = {name: self.made_by[name] for name in add.input if name in self.made_by}
        convs = [name for name, maker in makers.items() if maker.op_type == "Conv" and self._is_quantised(maker)]
        codes = [name for name, maker in makers.items() if maker.op_type == "DequantizeLinear"]
        total = self._step_behind(add)
        if len(convs) != 1 or len(codes) != 1 or total is None:
            return
        conv, step = makers[convs[0]], total + self._value(makers[codes[0]].input[1])
        scale = self._add(f"{conv.name}.scale", step)
        made, codes_name = f"{conv.name}.exact", f"{conv.name}.q"
        self.behind[conv.name] = [
            helper.make_node("QuantizeLinear", [made, scale, _MIDDLE], [codes_name], codes_name),
            helper.make_node("DequantizeLinear", [codes_name, scale, _MIDDLE], [conv.output[0]], f"{conv.name}.dq"),
        ]
        conv.output[0] = made

    def _is_quantised(self, conv: onnx.NodeProto) -> bool:
        maker = self.made_by.get(conv.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

    def _step_behind(self, add: onnx.NodeProto) -> float | None:
        """The step in which a sum is quantised, a ReLU between or not; None: someone reads it as it is."""
        readers = self.read_by[add.output[0]]
        if len(readers) == 1 and readers[0].op_type == "Relu":
            readers = self.read_by[readers[0].output[0]]
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            return None
        return self._value(readers[0].input[1])

    def _value(self, scale: str) -> float:
        return float(numpy_helper.to_array(self.constants[scale]))

    def _add(self, name: str, value: float) -> str:
        self.constants[name] = numpy_helper.from_array(np.array(value, np.float32), name)
        return name
