"""The graph with the ahead-of-time plugin's node: RoiAlignBlend under another name, with numbers for words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.surgery.graphs import SPEC
from tests.surgery.test_tail_plugin import RoiAlignBlend, model, tensors
from trt_blendmask.aot import NAME, NAMESPACE
from trt_blendmask.aot.attributes import TYPES, Floats, decode


class RoiAlignBlendAot(RoiAlignBlend):
    """The operator, by what tensorrt.plugin makes of the node's attributes."""

    def _run(self, *inputs: Any, **attributes: Any) -> tuple[Any]:
        arrays = {name: np.array([attributes[name]]) for name in TYPES}
        return RoiAlignBlend._run(self, *inputs, **decode(arrays))


@pytest.mark.parametrize("mask_dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("options", [{}, {"aligned": False, "sampling_ratio": 2, "attention_interpolation": "nearest"}])
def test_same_masks_as_the_plugin_tail(mask_dtype: str, options: dict[str, Any]) -> None:
    spec = replace(SPEC, mask_dtype=mask_dtype, tail="aot", **options)
    made = [model(replace(spec, tail=tail)) for tail in ("aot", "plugin")]
    operators = [RoiAlignBlend, RoiAlignBlendAot]
    got, wanted = (ReferenceEvaluator(m, new_ops=operators).run(None, tensors())[0] for m in made)
    assert got.dtype == np.dtype(mask_dtype)
    np.testing.assert_array_equal(got, wanted)


def test_node_is_what_the_parser_looks_for() -> None:
    made = model(replace(SPEC, mask_dtype="float16", tail="aot"))
    (node,) = [node for node in made.graph.node if node.domain == NAMESPACE]
    assert node.op_type == NAME
    given = {attribute.name: attribute for attribute in node.attribute}
    assert (given["aot"].type, given["aot"].i) == (onnx.AttributeProto.INT, 1)
    assert (given["plugin_version"].s, given["plugin_namespace"].s) == (b"1", NAMESPACE.encode())
    for name, kind in TYPES.items():
        assert given[name].type == (onnx.AttributeProto.FLOAT if kind is Floats else onnx.AttributeProto.INT)
    assert given["mask_dtype"].s == b"float16", "what reads RoiAlignBlend's node reads this one too"
