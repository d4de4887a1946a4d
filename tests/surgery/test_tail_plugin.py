"""The graph with the plugin's node, run by ONNX's reference evaluator with the native tail as the node's body."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.surgery.graphs import SPEC, run_model, run_tail
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.onnx_bounds import PLUGIN_DOMAIN as DOMAIN
from trt_blendmask.surgery import SurgeryOptions, operate
from trt_blendmask.surgery.split import half_paths
from trt_blendmask.surgery.tail import Filled, append_masks
from trt_blendmask.surgery.tail_plugin import OP_TYPE, append_plugin_masks

FIELDS = Path(__file__).resolve().parent.parent.parent / "plugins" / "roi_align_blend_fields.cpp"
N, D, K, M = 2, 5, SPEC.num_bases, SPEC.attention_size


class RoiAlignBlend(OpRun):
    """The operator by its description: all of it is taken from the node's attributes and inputs."""

    op_domain = DOMAIN

    def _run(self, bases: Any, boxes: Any, attention: Any, count: Any, **attributes: Any) -> tuple[Any]:
        n, d = boxes.shape[:2]
        spec = replace(
            SPEC,
            num_bases=bases.shape[1],
            mask_size=attributes["mask_size"],
            attention_size=attributes["attention_size"],
            spatial_scale=attributes["spatial_scale"],
            sampling_ratio=attributes["sampling_ratio"],
            aligned=bool(attributes["aligned"]),
            attention_interpolation=attributes["attention_interpolation"],
        )
        r = spec.mask_size
        masks = run_tail(bases, boxes, attention.reshape(n * d, -1), spec).reshape(n, d, r, r)
        masks[np.arange(d) >= count[:, None]] = 0
        return (masks.astype(attributes["mask_dtype"]),)


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    corners = random.uniform(-20, 150, (N, D, 2, 2)).astype(np.float32)
    return {
        "bases": random.normal(size=(N, K, 32, 40)).astype(np.float32),
        "boxes": np.sort(corners, axis=2).reshape(N, D, 4),
        "attention": random.normal(size=(N * D, K * M * M)).astype(np.float32),
        "count": np.array([D, 2], np.int32),
    }


def model(spec: Any) -> onnx.ModelProto:
    inputs = [gs.Variable(name, values.dtype, values.shape) for name, values in tensors().items()]
    graph = gs.Graph(opset=17, inputs=inputs)
    graph.outputs = [append_plugin_masks(graph, *inputs, (N, D), spec)]
    graph.cleanup().toposort()
    made = gs.export_onnx(graph)
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.mark.parametrize("mask_dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("options", [{}, {"aligned": False, "sampling_ratio": 2, "attention_interpolation": "nearest"}])
def test_same_masks_as_the_native_tail(mask_dtype: str, options: dict[str, Any]) -> None:
    spec, given = replace(SPEC, mask_dtype=mask_dtype, **options), tensors()
    got = ReferenceEvaluator(model(spec), new_ops=[RoiAlignBlend]).run(None, given)[0]
    native = run_tail(given["bases"], given["boxes"], given["attention"], spec)
    expected = (
        native.reshape(N, D, spec.mask_size, spec.mask_size) * (np.arange(D) < given["count"][:, None])[..., None, None]
    )
    if mask_dtype == "uint8":
        np.testing.assert_array_equal(got, np.round(255 * expected).astype(np.uint8))
    else:
        assert got.dtype == mask_dtype
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 if mask_dtype == "float32" else 1e-3)


def test_node_is_what_the_parser_looks_for() -> None:
    made = model(replace(SPEC, mask_dtype="float32"))
    (node,) = [node for node in made.graph.node if node.op_type == OP_TYPE]
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (given.pop("plugin_version"), given.pop("plugin_namespace")) == (b"1", DOMAIN.encode())
    fields = re.findall(r'(?:PluginField\{|text_field\()"(\w+)"', FIELDS.read_text())
    assert list(given) == fields, "the node's attributes are the plugin's fields"
    assert {opset.domain: opset.version for opset in made.opset_import} == {"": 17, DOMAIN: 1}
    assert [dim.dim_value for dim in made.graph.output[0].type.tensor_type.shape.dim] == [N, D, *[SPEC.mask_size] * 2]


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    return run_model(path.read_bytes(), feeds)


def test_one_network_around_two_tails(reference: Path, tmp_path: Path) -> None:
    """But for the blend the files are the same: the halves in front of it give the same bits."""
    paths = {}
    for tail in ("native", "plugin"):
        paths[tail] = tmp_path / f"{tail}.onnx"
        operate(reference / "onnx" / "rt_r50_legacy.onnx", paths[tail], SurgeryOptions(tail=tail, split=True))
    images = np.random.default_rng(0).integers(0, 256, (1, 128, 160, 3), dtype=np.uint8)
    native, plugin = (outputs(half_paths(path)[0], {"images": images}) for path in paths.values())
    assert native["count"] > 0
    assert all(np.array_equal(native[name], plugin[name]) for name in native)

    whole, tail = onnx.load(paths["plugin"]), onnx.load(half_paths(paths["plugin"])[1])
    for made, name in ((whole, "masks"), (tail, "masks")):
        (node,) = [node for node in made.graph.node if node.domain]
        assert (node.op_type, node.domain, list(node.output)) == (OP_TYPE, DOMAIN, [name])
    assert [value.name for value in tail.graph.input] == ["bases", "boxes", "attention", "count"]
    blended = ReferenceEvaluator(tail, new_ops=[RoiAlignBlend]).run(
        None, {k: native[k] for k in ("bases", "boxes", "attention", "count")}
    )[0]
    expected = outputs(paths["native"], {"images": images})["masks"]
    np.testing.assert_allclose(blended, expected, rtol=0, atol=1e-6)


def test_onnx_runtime_says_what_it_lacks(reference: Path, tmp_path: Path) -> None:
    operate(reference / "onnx" / "rt_r50_legacy.onnx", tmp_path / "model.onnx", SurgeryOptions(tail="plugin"))
    with pytest.raises(DataError, match="--tail native"):
        OnnxRuntimeSession(tmp_path / "model.onnx")


@pytest.mark.parametrize("beyond", [{"sampling_ratio": 3}, {"mask_size": 257}, {"attention_size": 300}])
def test_beyond_the_kernel(beyond: dict[str, int]) -> None:
    graph, spec = gs.Graph(opset=17), replace(SPEC, tail="plugin", **beyond)
    with pytest.raises(UsageError, match="--tail native"):
        append_masks(graph, gs.Variable("b"), None, None, Filled(1, 1, None, None), spec)
