"""Where Q and DQ stand, asserted on the written graph, for every family and for files that others wrote."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.raw_head import write_drawn
from tests.quantize.networks import deployable, model_of, table_of
from trt_blendmask import bundled_model
from trt_blendmask.quantize.fold import fold_affine
from trt_blendmask.quantize.int8 import assemble_int8, prepare_int8
from trt_blendmask.quantize.plan import read_plan
from trt_blendmask.surgery import SurgeryOptions, operate

NAMES = ["550_r50", "rt_r50", "dla34_small", "foreign 550_r50", "foreign rt_r50", "bundled", "deformable"]
# The convolutions that stay float, by names of our exporter and of AdelaiDet's.
STAY = re.compile(
    r"stem|base_layer|cls_logits|bbox_pred|ctrness|_offset|basis\.tower\.[45]$|basis_module/tower/tower\.4/Conv$"
)


class Placed:
    """A float graph, what became of it, and who makes and reads what in the latter."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.plan = model, read_plan(model)
        self.prepared = prepare_int8(model, table_of(model))
        self.graph = assemble_int8(self.prepared).graph
        self.made_by = {name: node for node in self.graph.node for name in node.output}
        self.read_by: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.read_by[name].append(node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}

    def op(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type in kinds]

    def maker(self, tensor: str) -> str:
        return self.made_by[tensor].op_type if tensor in self.made_by else ""

    def is_codes(self, tensor: str) -> bool:
        return self.maker(tensor) == "DequantizeLinear"


@pytest.fixture(scope="module", params=NAMES)
def placed(request: pytest.FixtureRequest, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Placed:
    folder = tmp_path_factory.mktemp("plan")
    if request.param == "bundled":
        return Placed(onnx.load(bundled_model()))
    if request.param == "deformable":
        write_drawn("R_101_dcni3_5x", (64, 64), folder / "raw.onnx")
        operate(folder / "raw.onnx", folder / "model.onnx", SurgeryOptions(max_detections=12))
        return Placed(onnx.load(folder / "model.onnx"))
    return Placed(deployable(reference, request.param, folder))


def test_all_convolutions_but_the_first_and_the_last_of_each_path(placed: Placed) -> None:
    stay = {node.name for node in placed.op("Conv") if not placed.is_codes(node.input[0])}
    last = max(node.name for node in placed.op("Conv") if "basis" in node.name and "tower" in node.name)
    named = {n.name for n in placed.op("Conv") if STAY.search(n.name)}
    # A network with one more ProtoNet convolution has one more number before the last.
    named -= {"basis.tower.4"} if last == "basis.tower.5" else set()
    assert stay == named
    for node in placed.op("Conv"):
        assert placed.is_codes(node.input[1]) == (node.name not in stay)


def test_only_what_tensorrt_fuses_reads_codes(placed: Placed) -> None:
    readers = Counter(node.op_type for dq in placed.op("DequantizeLinear") for node in placed.read_by[dq.output[0]])
    assert set(readers) <= {"Conv", "Add", "Concat", "MaxPool", "Resize"}
    for dq in placed.op("DequantizeLinear"):
        assert placed.read_by[dq.output[0]], dq.name


def test_residual_sums_take_one_convolution_in_and_codes_from_the_shortcut(placed: Placed) -> None:
    sums = [node for node in placed.op("Add") if any(placed.is_codes(name) for name in node.input)]
    for node in sums:
        kinds = sorted(placed.maker(name) for name in node.input)
        assert kinds == ["Conv", "DequantizeLinear"], node.name
        conv = next(placed.made_by[name] for name in node.input if placed.maker(name) == "Conv")
        assert placed.is_codes(conv.input[0])
        assert len(placed.read_by[conv.output[0]]) == 1
    backbone = [n for n in placed.op("Add") if re.search(r"^backbone.*\.add$|bottom_up.*/Add$", n.name)]
    assert {n.name for n in backbone} <= {n.name for n in sums}
    assert len(sums) == len(backbone) + 2  # and the two of the pyramid


def test_one_pair_per_tensor_and_one_scale_per_group(placed: Placed) -> None:
    quantised = placed.op("QuantizeLinear")
    assert max(Counter(node.input[0] for node in quantised).values()) == 1
    scale_of = {node.input[0]: node.input[1] for node in quantised}
    for node in quantised:
        (dq,) = placed.read_by[node.output[0]]
        assert dq.input[1] == node.input[1]
    for node in placed.op("Concat", "MaxPool", "Resize"):
        data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
        codes = [placed.is_codes(name) for name in data]
        if any(codes) or node.output[0] in scale_of:
            assert all(codes), node.name
            sources = {placed.made_by[placed.made_by[name].input[0]].input[0] for name in data}
            assert {scale_of[name] for name in sources} == {scale_of[node.output[0]]}, node.name


def test_grids_are_symmetric_and_weights_per_channel(placed: Placed) -> None:
    for node in placed.op("QuantizeLinear", "DequantizeLinear"):
        zero = placed.constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    for node in placed.op("Conv"):
        if placed.is_codes(node.input[1]):
            dq = placed.made_by[node.input[1]]
            assert dq.attribute[0].i == 0
            codes, scales = (placed.constants[name] for name in dq.input[:2])
            assert codes.dtype == np.int8
            assert scales.shape == (len(codes),)
            assert np.abs(codes.astype(int)).max() <= 127
            assert (scales.astype(np.float16).astype(np.float32) == scales).all()


def test_nothing_is_quantised_behind_the_last_of_a_chain(placed: Placed) -> None:
    needed = {name for node in placed.op("Conv") for name in node.input[:1] if placed.is_codes(name)}
    for node in reversed(placed.graph.node):
        codes = [name for name in node.input if placed.is_codes(name)]
        assert not codes or node.op_type == "Conv" or _leads_on(placed, node), node.name
    assert needed


def _leads_on(placed: Placed, node: onnx.NodeProto) -> bool:
    """Whether a quantised convolution is behind the node."""
    waiting, seen = [node], set()
    while waiting:
        for reader in placed.read_by[waiting.pop().output[0]]:
            if reader.op_type == "Conv" and placed.is_codes(reader.input[0]):
                return True
            if reader.name not in seen:
                seen.add(reader.name)
                waiting.append(reader)
    return False


def test_the_trunk_ends_at_bases_and_predictors(placed: Placed) -> None:
    makers = {placed.made_by[name].name for name in placed.plan.end}
    assert all(STAY.search(name) for name in makers)
    levels = sum("ctrness" in name for name in makers)
    assert len(makers) == 3 * levels + 1


def test_the_table_of_the_whole_plan_serves_every_choice_of_layers(placed: Placed) -> None:
    tensors = set(placed.plan.tensors)
    assert tensors == set(read_plan(fold_affine(placed.model)).tensors)
    for layer in placed.plan.layers[:: max(1, len(placed.plan.layers) // 12)]:
        assert tensors >= set(read_plan(placed.prepared.model, {layer.name}).tensors)
    kept = {layer.name for layer in placed.plan.layers[::2]}
    graph = assemble_int8(placed.prepared, kept).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.name in kept:
            assert "DequantizeLinear" not in {made.get(name) for name in node.input}


def test_our_export_and_adelaidets_have_the_same_plan(reference: Path, tmp_path: Path) -> None:
    ours, theirs = (read_plan(deployable(reference, name, tmp_path)) for name in ("rt_r50", "foreign rt_r50"))
    for plan in (ours, theirs):
        assert len(set(plan.tensors)) == len(plan.tensors)
    assert Counter(layer.part for layer in ours.layers) == Counter(layer.part for layer in theirs.layers)
    assert len(ours.edges) == len(theirs.edges)
    assert sorted(map(len, ours.groups)) == sorted(map(len, theirs.groups))


def test_a_sum_of_two_convolutions_keeps_the_longer_way_unquantised() -> None:
    weight = np.ones((4, 4, 1, 1), np.float32)
    steps = [("stem", "x", "s"), ("short", "s", "b"), ("long1", "s", "a"), ("long2", "a", "c"), ("last", "d", "y")]
    nodes = [helper.make_node("Conv", [i, "w"], [o], name) for name, i, o in steps]
    nodes.insert(4, helper.make_node("Add", ["b", "c"], ["d"], "add"))
    plan = read_plan(model_of(nodes, {"w": weight}, (1, 4, 8, 8)))
    assert {layer.name for layer in plan.layers} == {"short", "long1", "long2"}
    assert plan.edges == (("s", "short"), ("s", "long1"), ("a", "long2"), ("b", "add"))
