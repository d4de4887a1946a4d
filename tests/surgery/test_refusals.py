"""Files that are no raw-head graph: one sentence with the reason, the right exit code, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from trt_blendmask.errors import DataError, InputMissingError, OutputError, TrtBlendMaskError
from trt_blendmask.surgery import SurgeryOptions, operate

FLOAT = onnx.TensorProto.FLOAT
Edit = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def legacy(reference: Path) -> bytes:
    return (reference / "onnx" / "rt_r50_legacy.onnx").read_bytes()


def refused(content: bytes, folder: Path, options: SurgeryOptions | None = None) -> str:
    raw = folder / "raw.onnx"
    raw.write_bytes(content)
    with pytest.raises(TrtBlendMaskError) as caught:
        operate(raw, folder / "out" / "model.onnx", options)
    assert type(caught.value) is DataError
    assert not (folder / "out").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def edited(content: bytes, edit: Edit) -> bytes:
    model = onnx.load_model_from_string(content)
    edit(model)
    return model.SerializeToString()


def output(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    return next(o for o in model.graph.output if o.name == name)


def node_making(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if name in n.output)


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def drop(name: str) -> Edit:
    return lambda model: model.graph.output.remove(output(model, name))


def dynamic_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def point_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[3]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def custom_op(model: onnx.ModelProto) -> None:
    node = model.graph.node[5]
    node.domain, node.op_type = "acme", "Magic"
    model.opset_import.add(domain="acme", version=1)


def conditional(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["bases"], ["b"])], "g", [], [helper.make_empty_tensor_value_info("b")]
    )
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], "choice", then_branch=body, else_branch=body))


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 8


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def unknown_op(model: onnx.ModelProto) -> None:
    model.graph.node[5].op_type = "Convolve"


def dangling(model: onnx.ModelProto) -> None:
    del model.graph.node[5]


def lying_shape(model: onnx.ModelProto) -> None:
    output(model, "P3logits").type.tensor_type.shape.dim[1].dim_value = 9


def eight_distances(model: onnx.ModelProto) -> None:
    """P4bbox_reg with 8 channels, consistently."""
    node = node_making(model, "P4bbox_reg")
    model.graph.node.append(helper.make_node("Concat", ["P4half", "P4half"], ["P4bbox_reg"], "twice", axis=1))
    node.output[0] = "P4half"
    output(model, "P4bbox_reg").type.tensor_type.shape.dim[1].dim_value = 8


def half_precision(model: onnx.ModelProto) -> None:
    node = node_making(model, "P5centerness")
    node.output[0] = "P5centerness32"
    cast = helper.make_node("Cast", ["P5centerness32"], ["P5centerness"], "cast", to=onnx.TensorProto.FLOAT16)
    model.graph.node.append(cast)
    output(model, "P5centerness").type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def half_weights(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def not_a_number(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    tensor.raw_data = b"\xff" * 4 + tensor.raw_data[4:]


def quantised(model: onnx.ModelProto) -> None:
    node_making(model, "P5logits").op_type = "QLinearConv"


def optimised(model: onnx.ModelProto) -> None:
    node_making(model, "P5logits").domain = "com.microsoft.nchwc"


def eight_bases(model: onnx.ModelProto) -> None:
    """bases with 8 channels: 196 is no multiple of 8 squares."""
    node_making(model, "bases").output[0] = "bases4"
    model.graph.node.append(helper.make_node("Concat", ["bases4", "bases4"], ["bases"], "twice", axis=1))
    output(model, "bases").type.tensor_type.shape.dim[1].dim_value = 8


def swapped_levels(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name.startswith(("P3", "P4")):
                node.output[i] = f"P{7 - int(name[1])}{name[2:]}"
    for info in model.graph.output:
        if info.name.startswith(("P3", "P4")):
            info.name = f"P{7 - int(info.name[1])}{info.name[2:]}"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (drop("bases"), ["lack bases", "trt-blendmask export"]),
        (drop("P4centerness"), ["lack P4centerness"]),
        (dynamic_height, ["input_image", "static"]),
        (point_elsewhere, ["only files beside the model"]),
        (custom_op, ["acme::Magic"]),
        (conditional, ["'choice'", "If"]),
        (old_opset, ["opset 9 to", "opset 8"]),
        (future_opset, ["opset 99"]),
        (unknown_op, ["does not hold together", "Convolve"]),
        (dangling, ["does not hold together"]),
        (lying_shape, ["does not hold together", "(8) vs (9)"]),
        (eight_distances, ["P4bbox_reg", "[1, 4, 8, 10]", "[1, 8, 8, 10]"]),
        (half_precision, ["P5centerness", "float16", "before quantize"]),
        (half_weights, ["float16", "before quantize"]),
        (not_a_number, ["NaN", "another checkpoint"]),
        (quantised, ["QLinearConv", "before quantize"]),
        (optimised, ["com.microsoft.nchwc::Conv", "that ONNX Runtime optimised"]),
        (eight_bases, ["K*M*M", "P3top_feats", "196"]),
        (swapped_levels, ["P4logits", "power of two"]),
    ],
)
def test_graphs(legacy: bytes, tmp_path: Path, edit: Edit, words: list[str]) -> None:
    message = refused(edited(legacy, edit), tmp_path)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "content", [b"", b"not an ONNX", b"\x00" * 4096, b"\x80\x02}q\x00.", b"version: 1\nMODEL: {}\n"]
)
def test_no_onnx_at_all(tmp_path: Path, content: bytes) -> None:
    assert "raw-head ONNX" in refused(content, tmp_path)


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_truncated(legacy: bytes, tmp_path: Path, part: float) -> None:
    refused(legacy[: int(len(legacy) * part)], tmp_path)


def test_other_networks(tmp_path: Path) -> None:
    identity = helper.make_node("Identity", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, FLOAT, [1, 3]) for name in "xy")
    model = helper.make_model(helper.make_graph([identity], "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)])
    assert "outputs 'y' [1, 3]" in refused(model.SerializeToString(), tmp_path)


def test_already_deployable(reference: Path, tmp_path: Path) -> None:
    operate(reference / "onnx" / "rt_r50_legacy.onnx", tmp_path / "model.onnx")
    message = refused((tmp_path / "model.onnx").read_bytes(), tmp_path)
    assert "deployable" in message
    assert "trt-blendmask run" in message


def other_weights(model: onnx.ModelProto) -> None:
    node = node_making(model, "P4top_feats")
    tensor = weight(model, node.input[1])
    changed = numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-3), "changed")
    model.graph.initializer.append(changed)
    node.input[1] = "changed"


def activated(model: onnx.ModelProto) -> None:
    node_making(model, "P3top_feats").output[0] = "P3before"
    model.graph.node.append(helper.make_node("Relu", ["P3before"], ["P3top_feats"], "late_relu"))


@pytest.mark.parametrize(("edit", "word"), [(other_weights, "'P4top_feats' differ"), (activated, "Relu")])
def test_a_top_layer_that_cannot_be_sparse(legacy: bytes, tmp_path: Path, edit: Edit, word: str) -> None:
    content = edited(legacy, edit)
    message = refused(content, tmp_path)
    assert word in message
    assert "--top dense" in message
    (tmp_path / "raw.onnx").write_bytes(content)
    operate(tmp_path / "raw.onnx", tmp_path / "model.onnx", SurgeryOptions(top="dense"))


def test_copies_of_the_top_layer_are_fine(legacy: bytes, tmp_path: Path) -> None:
    """AdelaiDet's exporter stores a copy of the weights per level."""

    def copy(model: onnx.ModelProto) -> None:
        node = node_making(model, "P4top_feats")
        copied = numpy_helper.from_array(numpy_helper.to_array(weight(model, node.input[1])), "copied")
        model.graph.initializer.append(copied)
        node.input[1] = "copied"

    (tmp_path / "raw.onnx").write_bytes(edited(legacy, copy))
    operate(tmp_path / "raw.onnx", tmp_path / "model.onnx")


def test_a_yaml_of_another_network(reference: Path, legacy: bytes, tmp_path: Path) -> None:
    config = reference / "end_to_end" / "550_r50" / "config_full.yaml"
    message = refused(legacy, tmp_path, SurgeryOptions(config=config))
    assert "classes 8 in the graph, 80 there" in message


def test_missing_and_unwritable(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no such file"):
        operate(tmp_path / "none.onnx", tmp_path / "model.onnx")
    raw = reference / "onnx" / "rt_r50_legacy.onnx"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        operate(raw, tmp_path / "file" / "model.onnx")
    with pytest.raises(OutputError):
        operate(raw, tmp_path)


def test_an_older_opset_is_brought_up(legacy: bytes, tmp_path: Path) -> None:
    """Opset 13 of the same graph: the ops in it mean the same there."""

    def older(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 13

    (tmp_path / "raw.onnx").write_bytes(edited(legacy, older))
    report = operate(tmp_path / "raw.onnx", tmp_path / "model.onnx")
    assert onnx.load(report.output).opset_import[0].version == 17


def test_functions_are_unfolded(legacy: bytes, tmp_path: Path) -> None:
    """PyTorch's newer exporter may leave functions in the file."""

    def with_function(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.op_type == "Relu")
        body = [helper.make_node("Relu", ["a"], ["b"], "inner")]
        opsets = [helper.make_opsetid("", 20)]
        model.functions.append(helper.make_function("local", "Rectify", ["a"], ["b"], body, opsets))
        model.opset_import.add(domain="local", version=1)
        node.domain, node.op_type = "local", "Rectify"

    (tmp_path / "raw.onnx").write_bytes(edited(legacy, with_function))
    report = operate(tmp_path / "raw.onnx", tmp_path / "model.onnx")
    assert all(node.domain == "" for node in onnx.load(report.output).graph.node)


def test_names_of_ours_in_the_raw_graph(legacy: bytes, tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        old = model.graph.node[3].output[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = "boxes"

    (tmp_path / "raw.onnx").write_bytes(edited(legacy, rename))
    operate(tmp_path / "raw.onnx", tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
