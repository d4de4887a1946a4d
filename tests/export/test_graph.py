"""The file that export writes: names, sharing, shapes, metadata, bytes; and what it does when things do not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trt_blendmask.errors import DataError, InputMissingError, OutputError, UsageError
from trt_blendmask.export import ExportReport, export_onnx
from trt_blendmask.export.reader import read_checkpoint
from trt_blendmask.structures import METADATA_KEY, ModelSpec
from trt_blendmask.surgery.macs import count_macs

SIZE = (64, 96)
HEAD = "proposal_generator.fcos_head"


@pytest.fixture
def sources(reference: Path) -> tuple[Path, Path]:
    folder = reference / "end_to_end" / "rt_r50"
    return folder / "model_plain.pth", folder / "config_full.yaml"


@pytest.fixture
def exported(sources: tuple[Path, Path], tmp_path: Path) -> tuple[ExportReport, onnx.ModelProto]:
    report = export_onnx(*sources, tmp_path / "raw.onnx", SIZE)
    return report, onnx.load(report.output)


def shapes(values: Any) -> dict[str, tuple[int, ...]]:
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}


def test_names_tell_the_part(exported: tuple[ExportReport, onnx.ModelProto]) -> None:
    nodes = [node.name for node in exported[1].graph.node]
    assert len(set(nodes)) == len(nodes)
    assert {name.split(".")[0] for name in nodes} == {"backbone", "fpn", "head", "basis"}
    expected = (
        *("backbone.stem.conv1", "backbone.res3.0.conv1", "backbone.res3.0.shortcut", "backbone.res5.2.relu"),
        *("fpn.lateral4", "fpn.output3", "head.P3.share_tower.0", "head.P5.share_tower.2.norm", "head.P4.cls_logits"),
        *("head.P3.bbox_pred", "head.P3.ctrness", "head.P5.top_layer", "basis.refine.0", "basis.tower.1"),
    )
    assert set(expected) <= set(nodes)


def test_tensors_are_named_after_their_nodes(exported: tuple[ExportReport, onnx.ModelProto]) -> None:
    graph = exported[1].graph
    outputs = {output.name for output in graph.output}
    names = [name for node in graph.node for name in node.output]
    assert all(node.output[0] in (node.name, *outputs) for node in graph.node)
    everything = [*names, *(i.name for i in graph.initializer), *(i.name for i in graph.input)]
    assert len(set(everything)) == len(everything)


def test_every_tensor_has_the_shape_that_onnx_infers(exported: tuple[ExportReport, onnx.ModelProto]) -> None:
    model = exported[1]
    onnx.checker.check_model(model, full_check=True)
    ours = shapes([*model.graph.value_info, *model.graph.output])
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    assert ours == shapes([*inferred.value_info, *inferred.output])
    assert set(ours) == {name for node in model.graph.node for name in node.output}


def test_format_and_metadata(exported: tuple[ExportReport, onnx.ModelProto]) -> None:
    report, model = exported
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert (model.ir_version, model.producer_name) == (8, "trt-blendmask")
    spec = ModelSpec.from_json({p.key: p.value for p in model.metadata_props}[METADATA_KEY])
    assert spec == report.spec
    assert (spec.kind, spec.input_hw, spec.strides, spec.attention_size) == ("raw-head", SIZE, (8, 16, 32), 7)
    assert shapes(model.graph.input) == {"input_image": (1, 3, *SIZE)}  # weights are not inputs
    assert shapes(model.graph.output)["bases"] == (1, 4, SIZE[0] // 4, SIZE[1] // 4)


def test_the_report_counts(exported: tuple[ExportReport, onnx.ModelProto]) -> None:
    report, model = exported
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    assert report.parameters == sum(a.size for a in arrays.values() if a.dtype == np.float32)
    found = shapes([*model.graph.value_info, *model.graph.output])
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    macs = sum(np.prod(found[n.output[0]]) * np.prod(arrays[n.input[1]].shape[1:]) for n in convolutions)
    assert report.macs == int(macs)
    assert report.size_bytes == report.output.stat().st_size
    assert len(report.ignored_keys) == 73
    assert all(k.endswith("num_batches_tracked") or ".seg_head." in k for k in report.ignored_keys)


def test_shared_weights_are_stored_once(
    exported: tuple[ExportReport, onnx.ModelProto], sources: tuple[Path, Path]
) -> None:
    report, model = exported
    convolutions = {n.name: n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    for part in ("share_tower.0", "cls_logits", "bbox_pred", "ctrness", "top_layer"):
        assert len({convolutions[f"head.{level}.{part}"] for level in ("P3", "P4", "P5")}) == 1
    contents = [i.raw_data for i in model.graph.initializer if len(i.raw_data) > 1000]
    assert len(set(contents)) == len(contents)
    stored = sum(np.prod(weight.shape) for weight in read_checkpoint(sources[0]).weights.values())
    assert report.parameters < stored


def test_batch_norm_per_level_shares_the_convolution(
    small_config: Callable[..., Path], random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config()
    graph = onnx.load(export_onnx(random_checkpoint(config), config, tmp_path / "x.onnx").output).graph
    assert not [n for n in graph.node if n.op_type == "BatchNormalization"]
    convolutions = {n.name: list(n.input) for n in graph.node if n.op_type == "Conv"}
    assert len({convolutions[f"head.{level}.share_tower.1"][1] for level in ("P3", "P4", "P5")}) == 1
    names = {i.name for i in graph.initializer}
    assert {"head.P3.share_tower.1.norm.weight", "head.P5.share_tower.1.norm.bias"} <= names


WIDE = dict.fromkeys(("STEM_OUT_CHANNELS", "RES2_OUT_CHANNELS", "WIDTH_PER_GROUP"), 32)
DEFORMABLE = {"DEPTH": 50, "DEFORM_ON_PER_STAGE": [False, True, True, True], "DEFORM_INTERVAL": 2}
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "basic blocks, batch norm per level": {},
    "bottlenecks, P6 and P7, group norm, scales": {
        "RESNETS": {"DEPTH": 50, "NORM": "GN", **WIDE},
        "FCOS": {"TOP_LEVELS": 2, "NORM": "GN", "USE_SCALE": True, "NUM_CLS_CONVS": 1, "NUM_BOX_CONVS": 1},
        "FPN": {"NORM": "GN"},
    },
    "DLA-34, no towers": {
        "BACKBONE": {"NAME": "build_fcos_dla_fpn_backbone"},
        "FPN": {"IN_FEATURES": ["level3", "level4", "level5"]},
        "FCOS": {"NUM_SHARE_CONVS": 0},
        "BASIS_MODULE": {"NUM_CONVS": 0, "IN_FEATURES": ["p3"]},
    },
    "DCNv2": {"RESNETS": {**DEFORMABLE, "DEFORM_MODULATED": True, "DEFORM_NUM_GROUPS": 2}},
    "DCNv1 and deformable towers": {
        "RESNETS": {**DEFORMABLE, "STRIDE_IN_1X1": False, "NUM_GROUPS": 2, "WIDTH_PER_GROUP": 2},
        "FCOS": {"USE_DEFORMABLE": True, "NUM_CLS_CONVS": 1, "NUM_BOX_CONVS": 2},
    },
}


@pytest.mark.parametrize("deform", ["native", "op"])
@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS.keys())
def test_nothing_is_dead_or_there_twice(
    changes: dict[str, dict[str, Any]],
    deform: str,
    small_config: Callable[..., Path],
    random_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    config = small_config(changes)
    # Biases as a network has them at the start: equal tensors under many names.
    zeros = {f"{HEAD}.{key}.bias": np.zeros_like for key in ("cls_logits", "bbox_pred", "ctrness")}
    zeros |= {f"backbone.fpn_output{level}.bias": np.zeros_like for level in (3, 4, 5) if "FPN" not in changes}
    report = export_onnx(random_checkpoint(config, zeros), config, tmp_path / "x.onnx", deform=deform)
    model = onnx.load(report.output)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):
        assert needed & set(node.output), f"{node.name} leads to no output"
        assert node.op_type != "Identity"
        needed |= set(node.input)
    assert {i.name for i in graph.initializer} <= needed
    contents = [(i.data_type, tuple(i.dims), numpy_helper.to_array(i).tobytes()) for i in graph.initializer]
    assert len(set(contents)) == len(contents)
    stated = shapes([*graph.value_info, *graph.output])
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    assert stated == shapes([*inferred.value_info, *inferred.output])
    counted = sum(count_macs(model).values())
    assert counted == report.macs


def test_same_inputs_same_bytes(sources: tuple[Path, Path], tmp_path: Path) -> None:
    files = [export_onnx(*sources, tmp_path / name, SIZE).output for name in ("a.onnx", "b.onnx")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_batch(sources: tuple[Path, Path], tmp_path: Path, heads: Callable[..., dict[str, np.ndarray]]) -> None:
    images = np.random.default_rng(0).normal(0, 50, (3, 3, *SIZE)).astype(np.float32)
    one = export_onnx(*sources, tmp_path / "one.onnx", SIZE)
    three = export_onnx(*sources, tmp_path / "three.onnx", SIZE, batch=3)
    assert three.macs == 3 * one.macs
    together = heads(three.output, images)
    for index in range(3):
        for name, alone in heads(one.output, images[index : index + 1]).items():
            np.testing.assert_allclose(together[name][index], alone[0], atol=2e-4)
    for batch in (0, -1, 5000):
        with pytest.raises(UsageError, match="batch"):
            export_onnx(*sources, tmp_path / "x.onnx", SIZE, batch=batch)


def nothing_written(folder: Path) -> bool:
    return not [p for p in folder.iterdir() if ".onnx" in p.name]


def test_a_yaml_for_another_network(reference: Path, sources: tuple[Path, Path], tmp_path: Path) -> None:
    other = reference / "end_to_end" / "550_r50" / "config_full.yaml"
    with pytest.raises(DataError) as caught:
        export_onnx(sources[0], other, tmp_path / "x.onnx", SIZE)
    message = str(caught.value)
    assert "MODEL.FCOS.NUM_CLASSES 80 implies" in message
    assert "cls_logits.weight [80, 32, 3, 3], got [8, 32, 3, 3]" in message
    assert "top_block.p6.weight [32, 32, 3, 3], which is missing" in message
    assert message.count("implies") <= 5
    assert nothing_written(tmp_path)


def test_a_deeper_checkpoint_than_the_yaml_says(
    small_config: Callable[..., Path], random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """All that ResNet-18 asks for is in a ResNet-34, in the same shapes: what is left over must be seen."""
    checkpoint = random_checkpoint(small_config({"RESNETS": {"DEPTH": 34}}))
    with pytest.raises(DataError, match=r"no layer for backbone\.bottom_up\.res2\.2\.conv1"):
        export_onnx(checkpoint, small_config(), tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("top_layer.weight", float("nan"), "NaN"),
        ("basis_module.refine.0.1.running_var", -1.0, "negative variances"),
        ("basis_module.refine.0.1.running_var", 1e300, "finite"),
    ],
)
def test_weights_that_cannot_be(
    key: str,
    value: float,
    words: str,
    small_config: Callable[..., Path],
    random_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    config = small_config()
    checkpoint = random_checkpoint(config, changes={key: lambda array: np.full(array.shape, value)})
    with pytest.raises(DataError, match=words):
        export_onnx(checkpoint, config, tmp_path / "x.onnx")
    assert nothing_written(tmp_path)


def test_integer_weights_are_refused(
    small_config: Callable[..., Path], random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config()
    checkpoint = random_checkpoint(config, changes={"top_layer.weight": lambda array: array.astype(np.int8)})
    with pytest.raises(DataError, match="int8"):
        export_onnx(checkpoint, config, tmp_path / "x.onnx")


def test_group_norm_needs_its_channels(
    small_config: Callable[..., Path], random_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(small_config())
    with pytest.raises(DataError, match="multiple of 32"):
        export_onnx(checkpoint, small_config({"BASIS_MODULE": {"NORM": "GN"}}), tmp_path / "x.onnx")


def test_a_huge_network_is_refused_without_its_memory(sources: tuple[Path, Path], tmp_path: Path) -> None:
    text = sources[1].read_text().replace("OUT_CHANNELS: 32\n", "OUT_CHANNELS: 8192\n")
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises((DataError, UsageError)):
        export_onnx(sources[0], tmp_path / "x.yaml", tmp_path / "x.onnx", SIZE)


def test_too_large_an_input(sources: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 GiB"):
        export_onnx(*sources, tmp_path / "x.onnx", (8192, 8192), batch=64)
    assert nothing_written(tmp_path)


def test_inputs_and_outputs_that_cannot_be(sources: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, config = sources
    with pytest.raises(InputMissingError):
        export_onnx(tmp_path / "no.pth", config, tmp_path / "x.onnx")
    with pytest.raises(InputMissingError):
        export_onnx(checkpoint, tmp_path / "no.yaml", tmp_path / "x.onnx")
    with pytest.raises(OutputError):
        export_onnx(checkpoint, config, tmp_path, SIZE)
    mine = tmp_path / "mine.pth"
    mine.write_bytes(checkpoint.read_bytes())
    with pytest.raises(UsageError, match="overwrite"):
        export_onnx(mine, config, tmp_path / "." / "mine.pth", SIZE)
    assert mine.read_bytes() == checkpoint.read_bytes()


def test_import_is_cheap_and_torch_never_needed(sources: tuple[Path, Path], tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None  # importing it raises
import trt_blendmask.export as export
assert not {{"onnx", "yaml", "onnx_graphsurgeon", "onnxruntime", "cv2"}} & set(sys.modules), sys.modules
from pathlib import Path
export.export_onnx(Path({str(sources[0])!r}), Path({str(sources[1])!r}), Path({str(tmp_path / "x.onnx")!r}), {SIZE})
"""
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
