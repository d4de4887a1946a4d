"""Enlarging as the network means it, whatever the opset of the file can say.

Opsets 9 and 10 have no word for where the samples lie. PyTorch's exporters wrote `Upsample` and `Resize` there for
half-pixel bilinear enlarging all the same (with a warning), and runtimes read them as asymmetric: `bases` are then off
by up to 92 %. What BlendMask means is half-pixel for linear and asymmetric, rounded down, for nearest.
"""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import helper

ASIDE = "trt_blendmask.aside"  # a domain that the version converter leaves alone
MEANT = {
    "linear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
}


def mend_upsample(model: onnx.ModelProto, opset: int) -> str:
    """Give every enlarging node its meaning, in place; returns a sentence, empty if all said what they mean.

    Below opset 11 the nodes are set aside, see `unset_aside`: only later opsets can say it.
    """
    mended: Counter[str] = Counter()
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("Upsample", "Resize"):
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        mode = bytes(attributes.get("mode", b"nearest")).decode(errors="replace")
        if mode not in MEANT:
            continue
        if opset < 11:
            node.domain = ASIDE
        elif mode != "linear" or attributes.get("coordinate_transformation_mode") != b"asymmetric":
            continue
        node.op_type = "Resize"
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in MEANT[mode].items())
        mended[mode] += 1
    if not mended["linear"]:
        return ""
    said = f"opset {opset} cannot say so" if opset < 11 else "they said asymmetric"
    count = f"{mended['linear']} linear enlargings are" if mended["linear"] > 1 else "1 linear enlarging is"
    return f"{count} half-pixel now, as the network means ({said})"


def unset_aside(model: onnx.ModelProto) -> None:
    """Make standard `Resize` nodes of opset 11 and later of those that were set aside."""
    for node in model.graph.node:
        if node.domain == ASIDE:
            node.domain = ""
            data, scales = node.input
            node.input[:] = [data, "", scales]
    kept = [entry for entry in model.opset_import if entry.domain != ASIDE]
    del model.opset_import[:]
    model.opset_import.extend(kept)
