"""What float16 cannot hold, what a graph with codes or sampling becomes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.version_converter
import pytest
from onnx import helper, numpy_helper

from benchmarks.half_rounding import rounded_in_float32
from tests.quantize.half_graphs import FLOAT, HALF, small_model, types_of
from tests.surgery.graphs import run_model
from trt_blendmask.cli import main
from trt_blendmask.errors import DataError, InputMissingError, UsageError
from trt_blendmask.quantize.fp16 import quantize_fp16, type_half
from trt_blendmask.structures import METADATA_KEY


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for value in (100, 200):
        cv2.imwrite(str(folder / f"{value}.png"), np.full((8, 4, 3), value, np.uint8))
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def test_activation_beyond_float16_is_found_and_kept(tmp_path: Path, pictures: Path) -> None:
    source = small_model(tmp_path / "model.onnx", gain=150)  # 3 x 200 x 150 = 90000 in 'large' and 'scaled'
    half = tmp_path / "half.onnx"
    report = quantize_fp16(source, half, str(pictures))
    assert report.observed is not None
    assert (report.observed.pictures, report.observed.left_out) == (2, 1)
    assert report.observed.largest["large"] == 90000
    assert set(report.typing.kept) == {"large", "scaled"}
    assert any("'large', reaches 90000" in line for line in report.lines())
    assert report.typing.half == 0, "the second convolution would read infinity"
    image = np.full((8, 4, 3), 200, np.uint8)
    one, other = (run(rounded_in_float32(onnx.load(path)), image) for path in (source, half))
    np.testing.assert_allclose(one, other, atol=1e-3)
    quantize_fp16(source, half)  # not looked at: infinity
    assert np.isinf(run(rounded_in_float32(onnx.load(half)), image, "tame")).any()


def test_room_for_pictures_not_seen(tmp_path: Path, pictures: Path) -> None:
    for gain, kept in ((20.0, set()), (40.0, {"large", "scaled"})):  # 12000 and 24000: four times that is too much
        source = small_model(tmp_path / "model.onnx", gain)
        assert set(quantize_fp16(source, tmp_path / "half.onnx", str(pictures)).typing.kept) == kept


@pytest.mark.parametrize(("factor", "says"), [(1e5, "reaches 100000"), (1e-9, "too small")])
def test_constant_that_float16_cannot_hold(tmp_path: Path, factor: float, says: str) -> None:
    source = small_model(tmp_path / "model.onnx", 1e-6, factor)
    report = quantize_fp16(source, tmp_path / "half.onnx")
    assert says in report.typing.kept["factor"]
    model = onnx.load(tmp_path / "half.onnx")
    types = types_of(model)
    assert types["factor"] == types["scaled"] == FLOAT
    assert types["small"] == HALF


def run(model: onnx.ModelProto, image: np.ndarray, name: str = "masks") -> np.ndarray:
    if name != "masks":
        model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    return np.asarray(run_model(model, {"images": image[None]})[name])


def test_codes_come_back_in_the_type_they_were_made_from(tmp_path: Path) -> None:
    """Q and DQ in the graph: their scales and what they read and make are float16 where the convolutions are."""
    model = onnx.load(small_model(tmp_path / "model.onnx"))
    model.opset_import[0].version = 19
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "step"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    pair = [
        helper.make_node("QuantizeLinear", ["scaled", "step", "zero"], ["codes"], "codes"),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["back"], "back"),
        helper.make_node("MaxPool", ["back"], ["pooled"], "pooled", kernel_shape=[1, 1]),
    ]
    graph.node[4].input[0] = "pooled"
    for position, node in enumerate(pair, start=4):
        graph.node.insert(position, node)
    casts = type_half(model).casts
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    assert [types[name] for name in ("scaled", "step", "back", "pooled", "tame")] == [HALF] * 5
    assert (casts.to_half, casts.to_float) == (1, 1)


def test_places_to_sample_at_stay_float32(tmp_path: Path) -> None:
    """A deformable convolution's grid comes from a convolution in float16; TensorRT has one type for the sampling."""
    model = onnx.load(small_model(tmp_path / "model.onnx"))
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones((2, 1, 1, 1), np.float32), "offset.weight"))
    made = [
        helper.make_node("Conv", ["large", "offset.weight"], ["offset"], "offset"),
        helper.make_node("Mul", ["offset", "factor"], ["places"], "places"),
        helper.make_node("Transpose", ["places"], ["grid"], "grid", perm=[0, 2, 3, 1]),
        helper.make_node("GridSample", ["large", "grid"], ["scaled"], "samples"),
    ]
    del graph.node[3]
    for position, node in enumerate(made, start=3):
        graph.node.insert(position, node)
    onnx.save(model, tmp_path / "model.onnx")
    quantize_fp16(tmp_path / "model.onnx", tmp_path / "half.onnx")
    types = types_of(onnx.load(tmp_path / "half.onnx"))
    assert [types[name] for name in ("large", "offset", "tame")] == [HALF] * 3
    assert [types[name] for name in ("places", "grid", "scaled", "factor")] == [FLOAT] * 4


@pytest.mark.parametrize("opset", [18, 21])
def test_what_a_file_says_of_its_types_does_not_bind(tmp_path: Path, opset: int) -> None:
    """Files that another tool has passed on declare the float32 of every tensor."""
    source = small_model(tmp_path / "model.onnx")
    model, before = onnx.load(source), onnx.load(source).metadata_props
    model = onnx.shape_inference.infer_shapes(onnx.version_converter.convert_version(model, opset))
    model.graph.value_info.append(helper.make_tensor_value_info("weight", FLOAT, (1, 3, 1, 1)))
    helper.set_model_props(model, {entry.key: entry.value for entry in before})
    assert len(model.graph.value_info) > 5
    onnx.save(model, tmp_path / "passed_on.onnx")
    quantize_fp16(tmp_path / "passed_on.onnx", tmp_path / "half.onnx")
    made = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert [types_of(made)[name] for name in ("weight", "large", "tame", "masks")] == [HALF, HALF, HALF, FLOAT]
    image = np.full((8, 4, 3), 20, np.uint8)
    np.testing.assert_allclose(run(made, image), run(onnx.load(source), image), atol=1e-3)


def test_an_input_without_fixed_sizes_is_refused(tmp_path: Path) -> None:
    model = onnx.load(small_model(tmp_path / "model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "dynamic.onnx")
    with pytest.raises(DataError, match="four fixed sizes"):
        quantize_fp16(tmp_path / "dynamic.onnx", tmp_path / "half.onnx")


def test_halves_of_a_model_are_no_raw_heads(tmp_path: Path) -> None:
    for kind, ends in (("trunk", "output"), ("tail", "input")):
        model = onnx.load(small_model(tmp_path / "model.onnx"))
        getattr(model.graph, ends).append(helper.make_tensor_value_info("attention", FLOAT, (1, 2, 784)))
        del model.metadata_props[:]
        onnx.save(model, tmp_path / f"{kind}.onnx")
        with pytest.raises(DataError, match="a half of one"):
            quantize_fp16(tmp_path / f"{kind}.onnx", tmp_path / "half.onnx")


def test_refusals(tmp_path: Path, pictures: Path) -> None:
    source, output = small_model(tmp_path / "model.onnx"), tmp_path / "half.onnx"
    with pytest.raises(InputMissingError):
        quantize_fp16(tmp_path / "nothing.onnx", output)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(DataError, match="no ONNX file"):
        quantize_fp16(tmp_path / "text.onnx", output)
    with pytest.raises(DataError, match="before surgery"):
        quantize_fp16(small_model(tmp_path / "raw.onnx", kind="raw-head"), output)
    with pytest.raises(UsageError, match="overwrite"):
        quantize_fp16(source, source)
    with pytest.raises(DataError, match=r"constant 'weight'.*NaN"):
        quantize_fp16(small_model(tmp_path / "nan.onnx", np.nan), output)
    with pytest.raises(DataError, match="activation 'scaled' is NaN or infinite"):
        quantize_fp16(small_model(tmp_path / "inf.onnx", 1e20, 1e30), output, str(pictures))
    with pytest.raises(DataError, match="none of 1 can be read"):
        (pictures / "list.txt").write_text("torn.png\n")
        quantize_fp16(source, output, str(pictures / "list.txt"))
    assert not output.exists()
    quantize_fp16(source, output)
    with pytest.raises(DataError, match="quantised or typed already"):
        quantize_fp16(output, tmp_path / "again.onnx")
    bare = onnx.load(output)
    del bare.metadata_props[:]
    helper.set_model_props(bare, {METADATA_KEY: onnx.load(source).metadata_props[0].value})
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(DataError, match="is not float32"):
        quantize_fp16(tmp_path / "bare.onnx", tmp_path / "again.onnx")


def test_command(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = small_model(tmp_path / "model.onnx")
    assert main(["quantize", str(source), "--precision", "fp16", "--images", str(pictures)]) == 0
    said = capsys.readouterr().out
    assert "1 to float16" in said
    assert "2 pictures (1 could not be read)" in said
    assert "Next: trt-blendmask predict" in said
    plugin = small_model(tmp_path / "plugin.onnx", tail="plugin")
    assert main(["quantize", str(plugin), "--precision", "fp16"]) == 0
    assert "Next: trt-blendmask build" in capsys.readouterr().out, "ONNX Runtime has no such layer"
    assert (tmp_path / "model.fp16.onnx").exists()
    assert main(["quantize", str(tmp_path / "model.fp16.onnx"), "--precision", "fp16"]) == 65
    for unfit in (["-n", "5"], ["--from", "table.json"], ["--force"]):
        assert main(["quantize", str(source), "--precision", "fp16", *unfit]) == 2
