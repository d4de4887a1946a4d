"""Raw-head files as PyTorch's exporters write them, against PyTorch's own numbers and our export of these weights."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

from tests.surgery.graphs import run_model
from tests.surgery.shuffle import anonymous
from trt_blendmask.errors import DataError
from trt_blendmask.export import export_onnx
from trt_blendmask.surgery import SurgeryOptions, operate
from trt_blendmask.surgery.macs import count_graph_macs
from trt_blendmask.surgery.reading.group_norm import unify_group_norms
from trt_blendmask.surgery.reading.load import load_raw
from trt_blendmask.surgery.reading.parts import name_parts
from trt_blendmask.surgery.reading.raw_head import RawHead, find_raw_head
from trt_blendmask.surgery.reading.read_graph import read_graph
from trt_blendmask.surgery.reading.upsample import MEANT
from trt_blendmask.surgery.report import StepOutcome

ARCHIVE = Path(__file__).parent.parent / "golden" / "exporter_files.tar.xz"
HEADS, BOX_PX, SCORE, MASK = 1e-4, 1e-2, 1e-5, 1e-4
NETWORK = {"Add", "BatchNormalization", "Conv", "InstanceNormalization", "MaxPool", "Mul", "Relu", "Reshape", "Resize"}
LEGACY = [f"apart_legacy_{opset}" for opset in (9, 10, 11, 13, 16, 17, 19, 20)]
LEGACY += [f"shared_legacy_{opset}" for opset in (9, 11, 18)]
FILES = [*LEGACY, "apart_2020_9", "apart_dynamo_18", "apart_dynamo_20", "apart_dynamo_21", "shared_dynamo_17"]
NAMES = [f"P{level}{part}" for level in (3, 4, 5) for part in ("logits", "bbox_reg", "centerness", "top_feats")]
Edit = Callable[[onnx.ModelProto], object]


@dataclass(frozen=True)
class Read:
    """What is left of a file before anything is appended: the heads alone, as ONNX."""

    model: onnx.ModelProto
    head: RawHead
    macs: dict[str, int]
    group_norms: int
    steps: tuple[StepOutcome, ...]

    def run(self, images: Any) -> dict[str, Any]:
        return run_model(self.model, {self.model.graph.input[0].name: images})

    def said(self, step: str) -> str:
        return next((outcome.sentence for outcome in self.steps if outcome.name == step), "")


def read(path: Path) -> Read:
    graph, steps = read_graph(load_raw(path), path)
    head = find_raw_head(graph)
    name_parts(graph, head)
    units = unify_group_norms(graph)
    macs = count_graph_macs(graph)
    model = gs.export_onnx(graph.cleanup().toposort(), do_type_check=False)
    model.ir_version = 8
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return Read(model, head, macs, units, steps)


def read_bytes(content: bytes, folder: Path) -> Read:
    path = folder / "raw.onnx"
    path.write_bytes(content)
    return read(path)


def edited(content: bytes, edit: Edit) -> bytes:
    model = onnx.load_model_from_string(content)
    edit(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    with tarfile.open(ARCHIVE) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def expected(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """Per network the picture and the heads that PyTorch computed of it, and `images`, what the network gets."""
    found = {}
    for name in ("apart", "shared"):
        arrays = dict(np.load(io.BytesIO(files[f"{name}_expected.npz"])))
        planes = arrays["picture"].astype(np.float32) - np.array([103.53, 116.28, 123.675], np.float32)
        found[name] = arrays | {"images": np.ascontiguousarray(planes.transpose(2, 0, 1)[None])}
    return found


@pytest.fixture(scope="module")
def own(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our own exports of the two networks."""
    folder, paths = tmp_path_factory.mktemp("own"), {}
    for name in ("apart", "shared"):
        for ending in ("pth", "yaml"):
            (folder / f"{name}.{ending}").write_bytes(files[f"{name}.{ending}"])
        paths[name] = folder / f"{name}.onnx"
        export_onnx(folder / f"{name}.pth", folder / f"{name}.yaml", paths[name], (64, 96))
    return paths


def error(got: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The largest error of all heads, as the export's bound counts it."""
    return max(float((np.abs(got[k] - wanted[k]) / np.maximum(1, np.abs(wanted[k]))).max()) for k in got)


@pytest.mark.parametrize("name", FILES)
def test_heads(
    files: dict[str, bytes], expected: dict[str, Any], own: dict[str, Path], tmp_path: Path, name: str
) -> None:
    kind = name.partition("_")[0]
    got = read_bytes(files[f"{name}.onnx"], tmp_path)
    heads = got.run(expected[kind]["images"])
    assert set(heads) == set(expected[kind]) - {"picture", "images"}
    assert error(heads, expected[kind]) <= HEADS
    nodes, ours = got.model.graph.node, read(own[kind])
    assert {node.op_type for node in nodes} <= NETWORK
    assert [(entry.domain, entry.version) for entry in got.model.opset_import] == [("", 17)]
    assert len({node.name for node in nodes} - {""}) == len(nodes)
    assert got.macs == ours.macs
    assert got.group_norms == ours.group_norms == (6 if kind == "apart" else 0)
    assert got.head.recognised == ""
    folded = "apart_2020" not in name
    if folded and not name.startswith("shared"):
        assert len(nodes) == len(ours.model.graph.node)
    old = name.endswith(("_9", "_10"))
    assert ("3 linear enlargings are half-pixel" in got.said("upsample")) == old
    if "legacy" in name or "2020" in name:
        assert "copies of others" in got.said("weights")
        largest = [t for t in got.model.graph.initializer if np.prod(t.dims) > 256]
        assert len({t.raw_data for t in largest}) == len(largest)


def deployable(raw: Path, picture: Any, options: SurgeryOptions | None = None) -> dict[str, Any]:
    operate(raw, raw.with_suffix(".deployable"), options or SurgeryOptions(nms="op"))
    return run_model(raw.with_suffix(".deployable").read_bytes(), {"images": picture[None]})


def assert_same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert np.array_equal(got["count"], wanted["count"])
    assert np.array_equal(got["classes"], wanted["classes"])
    for name, bound in (("boxes", BOX_PX), ("scores", SCORE), ("masks", MASK)):
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("name", ["apart_legacy_9", "apart_2020_9", "apart_dynamo_21", "shared_legacy_9"])
def test_the_same_detections_as_our_own_export(
    files: dict[str, bytes], expected: dict[str, Any], own: dict[str, Path], tmp_path: Path, name: str
) -> None:
    kind = name.partition("_")[0]
    picture = expected[kind]["picture"]
    wanted = deployable(own[kind], picture, SurgeryOptions(nms="op", config=own[kind].with_suffix(".yaml")))
    assert wanted["count"][0] > 5
    options = SurgeryOptions(nms="op", config=own[kind].with_suffix(".yaml"))
    (tmp_path / "raw.onnx").write_bytes(files[f"{name}.onnx"])
    assert_same(deployable(tmp_path / "raw.onnx", picture, options), wanted)
    if name in ("apart_2020_9", "shared_legacy_9"):
        (tmp_path / "anonymous.onnx").write_bytes(anonymous(files[f"{name}.onnx"], 1))
        assert_same(deployable(tmp_path / "anonymous.onnx", picture, options), wanted)


def test_asymmetric_upsampling_would_be_seen(
    files: dict[str, bytes], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runtimes make of opset 9 by themselves: wrong bases, all else right."""
    monkeypatch.setitem(MEANT, "linear", {"mode": "linear", "coordinate_transformation_mode": "asymmetric"})
    heads = read_bytes(files["apart_legacy_9.onnx"], tmp_path).run(expected["apart"]["images"])
    bases = {"bases": heads.pop("bases")}
    assert error(bases, expected["apart"]) > 100 * HEADS
    assert error(heads, expected["apart"]) <= HEADS


def test_the_names_of_the_contract_win(files: dict[str, bytes], expected: dict[str, Any], tmp_path: Path) -> None:
    """Also where they are wrong: logits and centerness with each other's names are taken as named, and that is seen."""

    def swap(model: onnx.ModelProto) -> None:
        swapped = {"P3logits": "P3centerness", "P3centerness": "P3logits"}
        for node in model.graph.node:
            for i, name in enumerate(node.output):
                node.output[i] = swapped.get(name, name)

    heads = read_bytes(edited(files["apart_legacy_13.onnx"], swap), tmp_path).run(expected["apart"]["images"])
    assert error(heads, expected["apart"]) > 100 * HEADS
    swapped = expected["apart"] | {
        "P3logits": expected["apart"]["P3centerness"],
        "P3centerness": expected["apart"]["P3logits"],
    }
    assert error(heads, swapped) <= HEADS


@pytest.mark.parametrize("name", ["550_r50", "rt_r50", "dla34_small"])
def test_any_names_and_any_order(reference: Path, tmp_path: Path, name: str) -> None:
    content = (reference / "onnx" / f"{name}_legacy.onnx").read_bytes()
    images = np.random.default_rng(0).normal(0, 50, (1, 3, 128, 160)).astype(np.float32)
    named = read_bytes(content, tmp_path)
    wanted = named.run(images)
    for seed in range(4):
        got = read_bytes(anonymous(content, seed), tmp_path)
        heads = got.run(images)
        assert set(heads) == set(wanted)
        assert all(np.array_equal(heads[k], wanted[k]) for k in wanted)
        assert got.macs == named.macs
        assert got.group_norms == named.group_norms > 0
        assert " is bases; " in got.head.recognised


@pytest.mark.parametrize("pattern", ["m.{}", "model/{}", "{}:0", "blendmask_{}_out"])
def test_prefixes_and_suffixes(files: dict[str, bytes], tmp_path: Path, pattern: str) -> None:
    def rename(model: onnx.ModelProto) -> None:
        outputs = {output.name for output in model.graph.output}
        for output in model.graph.output:
            output.name = pattern.format(output.name)
        for node in model.graph.node:
            for i, name in enumerate(node.output):
                node.output[i] = pattern.format(name) if name in outputs else name

    got = read_bytes(edited(files["shared_legacy_11.onnx"], rename), tmp_path)
    assert sorted(output.name for output in got.model.graph.output) == sorted(
        ["bases", *(f"P{n}{name[2:]}" for n in range(3, 8) for name in NAMES[:4])]
    )
    assert f"'{pattern.format('bases')}' is bases" in got.head.recognised


def head_convolutions(model: onnx.ModelProto, part: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if any(name.endswith(part) for name in node.output)]


def with_channels(part: str, channels: int) -> Edit:
    """The convolutions of one part with so many channels, one shared weight."""

    def edit(model: onnx.ModelProto) -> None:
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        nodes = head_convolutions(model, part)
        rng = np.random.default_rng(channels)
        shape = (channels, *weights[nodes[0].input[1]].shape[1:])
        for end, values in (("weight", rng.normal(0, 0.1, shape)), ("bias", rng.normal(0, 0.1, channels))):
            tensor = numpy_helper.from_array(values.astype(np.float32), f"{part}.{end}")
            model.graph.initializer.append(tensor)
        for node in nodes:
            node.input[1:] = [f"{part}.weight", f"{part}.bias"]
        for output in model.graph.output:
            if output.name.endswith(part):
                output.type.tensor_type.shape.dim[1].dim_value = channels

    return edit


@pytest.mark.parametrize(
    ("name", "edit", "roles"),
    [
        ("shared_legacy_18", with_channels("logits", 1), {"logits", "centerness"}),
        ("shared_legacy_18", with_channels("logits", 18), {"logits", "top_feats"}),
        ("apart_legacy_13", with_channels("logits", 1), set()),
        ("apart_legacy_13", with_channels("logits", 16), set()),
        ("shared_legacy_18", with_channels("logits", 4), set()),
        ("shared_legacy_18", with_channels("top_feats", 2), set()),
        ("shared_legacy_18", with_channels("top_feats", 8), set()),
    ],
)
def test_channels_that_say_little(
    files: dict[str, bytes], tmp_path: Path, name: str, edit: Edit, roles: set[str]
) -> None:
    """One class, or as many as attention numbers: told by the tower, and refused where the tower is the same."""
    content = edited(files[f"{name}.onnx"], edit)
    images = np.random.default_rng(0).normal(0, 50, (1, 3, 64, 96)).astype(np.float32)
    wanted = read_bytes(content, tmp_path).run(images)
    if not roles:
        heads = read_bytes(anonymous(content, 4), tmp_path).run(images)
        assert all(np.array_equal(heads[k], wanted[k]) for k in wanted)
        return
    with pytest.raises(DataError, match="could each be") as caught:
        read_bytes(anonymous(content, 4), tmp_path)
    assert all(role in str(caught.value) for role in roles)
    hidden = edited(content, hide_outputs)  # the weights still have their names: those decide
    heads = read_bytes(hidden, tmp_path).run(images)
    assert all(np.array_equal(heads[k], wanted[k]) for k in wanted)


def hide_outputs(model: onnx.ModelProto) -> None:
    names = {output.name: f"output_{i}" for i, output in enumerate(model.graph.output)}
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            node.output[i] = names.get(name, name)
    for output in model.graph.output:
        output.name = names[output.name]


def test_some_names_left(files: dict[str, bytes], expected: dict[str, Any], tmp_path: Path) -> None:
    """Half of the outputs renamed, one more output that is a feature map."""

    def edit(model: onnx.ModelProto) -> None:
        tower = head_convolutions(model, "P3top_feats")[0].input[0]
        names = {f"P3{name[2:]}": f"first_{name[2:]}" for name in NAMES[:4]} | {"P4top_feats": "attn"}
        for node in model.graph.node:
            for i, name in enumerate(node.output):
                node.output[i] = names.get(name, name)
        for output in model.graph.output:
            output.name = names.get(output.name, output.name)
        model.graph.output.append(helper.make_tensor_value_info(tower, 1, [1, 32, 8, 12]))

    got = read_bytes(edited(files["apart_legacy_13.onnx"], edit), tmp_path)
    heads = got.run(expected["apart"]["images"])
    assert error({name: heads[name] for name in ["bases", *NAMES]}, expected["apart"]) <= HEADS
    assert "'first_logits'" in got.head.recognised
    assert "P5" not in got.head.recognised


def test_boxes_of_another_fcos(files: dict[str, bytes], tmp_path: Path) -> None:
    def exponential(model: onnx.ModelProto) -> None:
        for node in head_convolutions(model, "bbox_reg"):
            node.op_type = "Exp"
        hide_outputs(model)

    with pytest.raises(DataError, match="ends in Exp"):
        read_bytes(edited(files["apart_legacy_13.onnx"], exponential), tmp_path)


@pytest.mark.parametrize("batch", ["N", -1, 0])
def test_an_open_batch_becomes_one(
    files: dict[str, bytes], expected: dict[str, Any], tmp_path: Path, batch: str | int
) -> None:
    def open_batch(model: onnx.ModelProto) -> None:
        images = next(value for value in model.graph.input if value.name == "input_image")
        for value in (images, *model.graph.output):
            dim = value.type.tensor_type.shape.dim[0]
            if isinstance(batch, str):
                dim.dim_param = batch
            else:
                dim.dim_value = batch

    got = read_bytes(edited(files["apart_legacy_11.onnx"], open_batch), tmp_path)
    assert "fixed to 1" in got.said("batch")
    assert error(got.run(expected["apart"]["images"]), expected["apart"]) <= HEADS
