"""The whole operation on our exporter's files: the contract, the batch, both tops, the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from tests.surgery.graphs import head_of, run_graph, run_model
from trt_blendmask.errors import UsageError
from trt_blendmask.export import export_onnx
from trt_blendmask.structures import METADATA_KEY, ModelSpec
from trt_blendmask.surgery import SurgeryOptions, operate
from trt_blendmask.surgery.macs import count_macs
from trt_blendmask.surgery.sparse_top import TopLayer, append_dense_top, append_sparse_top

BARRED = {"If", "Loop", "Scan", "NonZero", "NonMaxSuppression", "RoiAlign", "Compress", "Unique", "Shape"}


@pytest.fixture(scope="module")
def raws(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Raw-head files of rt_r50 at batch 1 and 2, 128 x 160."""
    folder, source = tmp_path_factory.mktemp("raw"), reference / "end_to_end" / "rt_r50"
    paths = {n: folder / f"raw{n}.onnx" for n in (1, 2)}
    for n, path in paths.items():
        export_onnx(source / "model_plain.pth", source / "config_full.yaml", path, (128, 160), n)
    return paths


@pytest.fixture(scope="module")
def pictures(reference: Path) -> Any:
    """uint8 [2, 128, 160, 3]: the reference's picture, and the same upside down."""
    image = np.load(reference / "end_to_end" / "rt_r50" / "img0.npz")["image"]
    return np.stack([image, image[::-1]])


def declared(model: onnx.ModelProto) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        v.name: (
            onnx.TensorProto.DataType.Name(v.type.tensor_type.elem_type),
            tuple(d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in (*model.graph.input, *model.graph.output)
    }


@pytest.mark.parametrize("mask_dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("input_dtype", ["uint8", "float32"])
def test_contract(raws: dict[int, Path], tmp_path: Path, input_dtype: str, mask_dtype: str) -> None:
    path = tmp_path / "model.onnx"
    options = SurgeryOptions(input_dtype=input_dtype, mask_dtype=mask_dtype, max_detections=30)
    report = operate(raws[2], path, options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    images = ("UINT8", (2, 128, 160, 3)) if input_dtype == "uint8" else ("FLOAT", (2, 3, 128, 160))
    assert declared(model) == {
        "images": images,
        "count": ("INT32", (2,)),
        "boxes": ("FLOAT", (2, 30, 4)),
        "scores": ("FLOAT", (2, 30)),
        "classes": ("INT32", (2, 30)),
        "masks": (mask_dtype.upper().replace("FLOAT32", "FLOAT"), (2, 30, 56, 56)),
    }
    assert list(declared(model)) == ["images", "count", "boxes", "scores", "classes", "masks"]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert not BARRED & {node.op_type for node in model.graph.node}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for info in inferred.graph.value_info:
        assert all(d.HasField("dim_value") for d in info.type.tensor_type.shape.dim), info.name
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    spec = ModelSpec.from_json(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    assert spec == report.spec
    assert (spec.kind, spec.max_detections) == ("deployable", 30)
    assert (spec.top, spec.nms, spec.tail) == ("sparse", "matrix", "native")
    assert (spec.input_dtype, spec.mask_dtype, spec.num_classes) == (input_dtype, mask_dtype, 8)
    assert report.size_bytes == path.stat().st_size
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("nms", ["matrix", "op"])
@pytest.mark.parametrize("top", ["sparse", "dense"])
def test_nothing_dead_and_nothing_twice(raws: dict[int, Path], tmp_path: Path, top: str, nms: str) -> None:
    operate(raws[2], tmp_path / "model.onnx", SurgeryOptions(top=top, nms=nms))
    graph = onnx.load(tmp_path / "model.onnx").graph
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):
        assert needed & set(node.output), f"nothing needs {node.name}"
        needed |= set(node.input)
    assert {tensor.name for tensor in graph.initializer} <= needed
    assert not [node.name for node in graph.node if node.op_type in ("Constant", "Identity")]
    seen: dict[Any, str] = {}
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        key = (values.dtype.str, values.shape, values.tobytes())
        assert key not in seen, f"{tensor.name} is {seen[key]} again"
        seen[key] = tensor.name


def test_both_forms_of_nms_give_the_same(raws: dict[int, Path], tmp_path: Path, pictures: Any) -> None:
    results = []
    for nms in ("matrix", "op"):
        report = operate(raws[2], tmp_path / "model.onnx", SurgeryOptions(nms=nms))
        assert report.spec.nms == nms
        kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
        assert ("NonMaxSuppression" in kinds) == (nms == "op")
        results.append(run_model((tmp_path / "model.onnx").read_bytes(), {"images": pictures}))
    for name, values in results[0].items():
        assert np.array_equal(results[1][name], values), name


def test_a_batch_is_its_images(raws: dict[int, Path], tmp_path: Path, pictures: Any) -> None:
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    operate(raws[1], one)
    operate(raws[2], two)
    together = run_model(two.read_bytes(), {"images": pictures})
    assert (together["count"] > 20).all()
    for n in range(2):
        alone = run_model(one.read_bytes(), {"images": pictures[n : n + 1]})
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][n], values[0], rtol=0, atol=1e-4, err_msg=name)


def test_mask_types_and_inputs_agree(raws: dict[int, Path], tmp_path: Path, pictures: Any) -> None:
    def masks(**options: Any) -> Any:
        path = tmp_path / "model.onnx"
        operate(raws[1], path, SurgeryOptions(**options))
        frames = pictures[:1]
        if options.get("input_dtype") == "float32":
            frames = frames.astype(np.float32) - np.array([103.53, 116.28, 123.675], np.float32)
            frames = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
        return run_model(path.read_bytes(), {"images": frames})["masks"]

    wanted = masks()
    np.testing.assert_allclose(masks(input_dtype="float32"), wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(masks(mask_dtype="float16").astype(np.float32), wanted, rtol=0, atol=5e-4)
    assert np.array_equal(masks(mask_dtype="uint8"), np.round(wanted * np.float32(255)).astype(np.uint8))


def test_sparse_top_is_the_dense_top() -> None:
    """At every location of every level, borders and corners included."""
    rng = np.random.default_rng(0)
    sizes, channels, out = [(5, 7), (3, 4), (1, 2)], 16, 36
    weight = (rng.standard_normal((out, channels, 3, 3)) / 12).astype(np.float32)
    bias = rng.standard_normal(out).astype(np.float32)
    towers = [rng.standard_normal((2, channels, *hw)).astype(np.float32) for hw in sizes]
    levels = [
        {"logits": np.zeros((2, 1, *hw)), "reg": np.zeros((2, 4, *hw)), "ctr": np.zeros((2, 1, *hw)), "top": tower}
        for hw, tower in zip(sizes, towers, strict=True)
    ]
    head, feeds = head_of(levels, [8, 16, 32], (40, 56))
    inputs = [level.top_feats for level in head.levels]
    graph = gs.Graph(opset=17, inputs=inputs)
    convs = []
    for level, tensor in zip(head.levels, inputs, strict=True):
        dense = gs.Variable(f"dense{level.number}", np.float32, (2, out, *level.hw))
        values = [gs.Constant(f"w{level.number}", weight), gs.Constant(f"b{level.number}", bias)]
        graph.nodes.append(gs.Node("Conv", dense.name, {"pads": [1, 1, 1, 1]}, [tensor, *values], [dense]))
        convs.append(replace(level, top_feats=dense))
    everywhere = np.stack([rng.permutation(head.locations) for _ in range(2)])
    feeds = {tensor.name: feeds[tensor.name] for tensor in inputs}
    wanted = append_dense_top(graph, replace(head, levels=tuple(convs)), everywhere)
    dense = run_graph(graph, {"attention": wanted}, feeds)["attention"]
    graph = gs.Graph(opset=17, inputs=inputs)
    top = TopLayer(tuple(inputs), weight, bias)
    got = append_sparse_top(graph, head, top, everywhere, head.locations)
    sparse = run_graph(graph, {"attention": got}, feeds)["attention"]
    assert np.abs(dense).max() > 1
    np.testing.assert_allclose(sparse, dense, rtol=0, atol=1e-5)


def test_options_reach_the_graph(raws: dict[int, Path], tmp_path: Path, pictures: Any) -> None:
    def run(**options: Any) -> Any:
        operate(raws[1], tmp_path / "model.onnx", SurgeryOptions(**options))
        return run_model((tmp_path / "model.onnx").read_bytes(), {"images": pictures[:1]})

    base, few = run(), run(max_detections=3)
    assert few["count"][0] == 3
    np.testing.assert_array_equal(few["scores"][0], base["scores"][0, :3])
    middle = float(base["scores"][0, 5]) ** 2 + 1e-6  # the threshold acts before the square root
    assert run(score_threshold=middle)["count"][0] == 5
    assert run(nms_threshold=0.0)["count"][0] > base["count"][0]


def test_the_same_bytes_again(raws: dict[int, Path], tmp_path: Path) -> None:
    operate(raws[1], tmp_path / "a.onnx")
    operate(raws[1], tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_multiply_adds_by_part(raws: dict[int, Path], tmp_path: Path) -> None:
    report = operate(raws[1], tmp_path / "model.onnx")
    locations = 16 * 20 + 8 * 10 + 4 * 5
    before, after = report.macs_before, report.macs_after
    assert before["top_layer"] == locations * 9 * 32 * 196
    assert after["top_layer"] == 100 * 9 * 32 * 196
    assert before["predictors"] == locations * 9 * 32 * (8 + 4 + 1)
    assert before["towers"] == 3 * locations * 9 * 32 * 32
    for part in ("backbone", "fpn", "towers", "predictors", "basis"):
        assert before[part] == after[part] > 0
    assert before["tail"] == 0
    dense = operate(raws[1], tmp_path / "dense.onnx", SurgeryOptions(top="dense"))
    assert dense.macs_after["top_layer"] == before["top_layer"]


def test_adelaidets_names_give_the_same_parts(reference: Path, raws: dict[int, Path]) -> None:
    legacy = onnx.load(reference / "onnx" / "rt_r50_legacy.onnx")
    assert count_macs(legacy) == count_macs(onnx.load(raws[1]))
    for i, node in enumerate(legacy.graph.node):
        node.name = f"n{i}"
    anonymous = count_macs(legacy)
    assert sum(anonymous.values()) == sum(count_macs(onnx.load(raws[1])).values())
    assert anonymous["basis"] == count_macs(onnx.load(raws[1]))["basis"]


def test_report(raws: dict[int, Path], tmp_path: Path) -> None:
    report = operate(raws[1], tmp_path / "model.onnx")
    for earlier, later in zip(report.steps, report.steps[1:], strict=False):
        assert earlier.nodes_after == later.nodes_before
    assert report.steps[-1].nodes_after == len(onnx.load(report.output).graph.node)
    text = "\n".join(report.lines())
    for word in ("raw_head", "images", "selection", "nms", "sparse_top", "tail", "outputs", "top_layer", "8/16/32"):
        assert word in text
    assert str(report.output) in report.summary()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"tail": "magic"}, "--tail"),
        ({"top": "middle"}, "--top"),
        ({"nms": "soft"}, "--nms"),
        ({"input_dtype": "int8"}, "--input"),
        ({"mask_dtype": "bool"}, "--mask-dtype"),
        ({"max_detections": 0}, "--max-detections"),
        ({"max_detections": 1001}, "--max-detections"),
        ({"score_threshold": 1.0}, "--score-threshold"),
        ({"score_threshold": -0.1}, "--score-threshold"),
        ({"score_threshold": float("nan")}, "--score-threshold"),
        ({"nms_threshold": float("nan")}, "--nms-threshold"),
        ({"nms_threshold": 1.5}, "--nms-threshold"),
    ],
)
def test_options_out_of_range(raws: dict[int, Path], tmp_path: Path, options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        operate(raws[1], tmp_path / "model.onnx", SurgeryOptions(**options))
    assert not list(tmp_path.iterdir())
