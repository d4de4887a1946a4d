"""Find the raw heads inside a graph that goes on behind them: the last convolution of each level and kind.

What goes in is found too: where the picture comes in, and how the graph normalises it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from trt_blendmask.errors import DataError
from trt_blendmask.surgery.reading.merge_weights import Array
from trt_blendmask.surgery.whole.core import Core
from trt_blendmask.surgery.whole.wiring import Wiring, attributes

_EXPORT = "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"


@dataclass(frozen=True)
class InnerHeads:
    """Tensors of the file by their raw-head names: `bases`, `P3logits`, `P3bbox_reg` ..., and the levels' numbers."""

    names: dict[str, str]
    levels: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """What the network reads once the picture is normalised: `tensor` float32 [N, 3, H, W] = (image - mean) / std.

    Attributes:
        mean, std: of the network's channels, on the scale 0 ... 255; None where the file's input is normalised.
        sentence: what was found, for the report.
    """

    tensor: str
    hw: tuple[int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    sentence: str

    def value(self, wiring: Wiring) -> onnx.ValueInfoProto:
        """Its declaration as the input of what is behind it."""
        shape = wiring.shape(self.tensor)
        return onnx.helper.make_tensor_value_info(self.tensor, onnx.TensorProto.FLOAT, shape)


def find_inner_heads(wiring: Wiring, core: Core, picture: Picture) -> InnerHeads:
    """Group the last convolutions before the selection by their size, and tell them apart by channels and consumers.

    Raises:
        DataError: a level has not logits, 4 distances, centerness and K*M*M top features.
    """
    top = core.settings.num_bases * core.settings.attention_size**2
    levels: dict[tuple[int, ...], list[onnx.NodeProto]] = {}
    for node in _last_convolutions(wiring, core):
        shape = wiring.shape(node.output[0]) or ()
        levels.setdefault(shape[2:], []).append(node)
    names = {"bases": core.bases}
    numbers = []
    for hw in sorted(levels, reverse=True):
        found = _parts(wiring, levels[hw], top)
        if found is None:
            kinds = ", ".join(str((wiring.shape(n.output[0]) or ("?", "?"))[1]) for n in levels[hw])
            raise DataError(
                f"Expected convolutions of C classes, 4 distances, 1 centerness and {top} top features at each level "
                f"before the selection, got some of {kinds} channels at {list(hw)}: this is no BlendMask whose heads "
                f"can be told apart. {_EXPORT}"
            )
        number = round(np.log2(picture.hw[0] / hw[0])) if hw and hw[0] else 0
        numbers.append(number)
        names |= {f"P{number}{part}": tensor for part, tensor in found.items()}
    if not numbers:
        raise DataError(f"Expected the heads of a BlendMask before the selection, got no convolutions. {_EXPORT}")
    return InnerHeads(names, tuple(numbers))


def _last_convolutions(wiring: Wiring, core: Core) -> list[onnx.NodeProto]:
    """Those behind which no other convolution comes, those of the bases apart."""
    convolutions = {"Conv", "ConvTranspose", "DeformConv"}
    feeding: set[str] = set()  # tensors from which a convolution is reached
    last = []
    for node in reversed(wiring.model.graph.node):
        inside = any(name in feeding for name in node.output)
        if node.op_type == "Conv" and not inside and node.output[0] != core.bases:
            last.append(node)
        if inside or node.op_type in convolutions:
            feeding.update(node.input)
    behind_bases = wiring.before([core.bases])
    return [node for node in last[::-1] if node.output[0] not in behind_bases and wiring.consumers.get(node.output[0])]


def _parts(wiring: Wiring, nodes: list[onnx.NodeProto], top: int) -> dict[str, str] | None:
    rest = {node.output[0]: (wiring.shape(node.output[0]) or (0, 0))[1] for node in nodes}
    if len(rest) != 4:
        return None

    def take(fits: Callable[[str, int], bool], last: bool = False) -> str:
        found: list[str] = [name for name, channels in rest.items() if fits(name, channels)]
        if found:
            del rest[found[-1 if last else 0]]
        return found[-1 if last else 0] if found else ""

    distances = {name: _behind_relu(wiring, name) for name in rest}
    box = take(lambda name, channels: channels == 4 and bool(distances[name]))
    features = take(lambda _, channels: channels == top)
    # Exporters list class logits before centerness, which matters with one class only.
    centerness = take(lambda _, channels: channels == 1, last=True)
    if not box or not features or not centerness:
        return None
    return {
        "logits": next(iter(rest)),
        "bbox_reg": distances[box],
        "centerness": centerness,
        "top_feats": features,
    }


def _behind_relu(wiring: Wiring, name: str) -> str:
    """The tensor after Relu, a learnt scale before it allowed; "" if there is none."""
    for _ in range(2):
        nodes = wiring.consumers.get(name, ())
        if len(nodes) != 1:
            return ""
        name = str(nodes[0].output[0])
        if nodes[0].op_type in ("Relu", "Clip"):
            return name if nodes[0].op_type == "Relu" else ""
        if nodes[0].op_type != "Mul":
            return ""
    return ""


def find_picture(wiring: Wiring, names: list[str]) -> Picture:
    """Follow the input to where the network begins, keeping account of what is done to each channel.

    Raises:
        DataError: more than one input, no static picture, or arithmetic that is no normalisation.
    """
    if len(names) != 1:
        raise DataError(f"Expected one input, a picture, got {', '.join(names) or 'none'}. {_EXPORT}")
    start = name = names[0]
    scale, shift = np.ones(3), np.zeros(3)
    flipped, touched = False, False
    while True:
        nodes = [n for n in wiring.consumers.get(name, ()) if n.op_type != "Shape"]
        if len(nodes) != 1 or nodes[0].op_type not in PICTURE_STEPS:
            break
        step = _channel_step(wiring, nodes[0], name)
        if step is None:
            break
        a, b, flip = step
        scale, shift = (scale[::-1], shift[::-1]) if flip else (scale, shift)
        scale, shift, flipped = scale * a, shift * a + b, flipped ^ flip
        touched |= nodes[0].op_type in _ARITHMETIC
        name = nodes[0].output[0]
    shape = wiring.shape(name) or ()
    if len(shape) != 4 or shape[1] != 3 or not all(shape):
        raise DataError(
            f"Expected a picture of static shape [N, 3, H, W] behind the input '{start}', got {list(shape)}: an engine "
            "without allocations needs fixed sizes. Export the model again with a fixed input size."
        )
    hw = (shape[2], shape[3])
    if not touched:
        return Picture(name, hw, None, None, f"'{start}' comes normalised")
    with np.errstate(all="ignore"):
        means, stds = -shift / scale, 1 / scale
    if not np.isfinite([*means, *stds]).all() or (stds <= 0).any():
        raise DataError(
            f"Expected a normalisation (x - mean) / std of the input '{start}', got other arithmetic. {_EXPORT}"
        )
    unit = bool((abs(means) < 2).all() and (stds < 1).all())  # such means belong to pictures of 0 ... 1
    factor = 255 if unit else 1
    mean, std = (tuple(float(f"{v:.7g}") for v in values * factor) for values in (means, stds))
    words = f"'{start}' {'of 0 ... 1 ' if unit else ''}is normalised in the file: mean {_list(mean)}, std {_list(std)}"
    return Picture(name, hw, mean, std, words + ("; it took RGB, 'images' is BGR" if flipped else ""))


_ARITHMETIC = {"Sub", "Add", "Mul", "Div"}
PICTURE_STEPS = _ARITHMETIC | {"Identity", "Cast", "Unsqueeze", "Reshape", "Transpose", "Gather"}


def _list(values: tuple[float, ...]) -> str:
    return "/".join(f"{v:g}" for v in values)


def _channel_step(wiring: Wiring, node: onnx.NodeProto, name: str) -> tuple[Array, Array, bool] | None:
    """(a, b, flipped) of x -> a * x + b per channel; None for anything else, where the network begins."""
    one, zero = np.ones(3), np.zeros(3)
    if node.op_type == "Gather":
        index = wiring.constants.get(node.input[1], np.zeros(0)).ravel().tolist()
        return (one, zero, True) if index == [2, 1, 0] and attributes(node).get("axis") in (1, 3, -1) else None
    if node.op_type not in _ARITHMETIC:
        return one, zero, False
    other = next((x for x in node.input if x != name), "")
    constant: Any = wiring.constants.get(other)
    if constant is None or constant.size not in (1, 3):
        return None
    value = np.broadcast_to(constant.ravel().astype(np.float64), (3,))
    first = node.input[0] == name
    if node.op_type == "Mul":
        return value, zero, False
    if node.op_type == "Add":
        return one, value, False
    if node.op_type == "Sub":
        return (one, -value, False) if first else (-one, value, False)
    return (1 / value, zero, False) if first else None
