"""Loading a model and calling it: `Detections` in frame pixels, and one sentence for every file that will not do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.stream.clips import recording
from trt_blendmask.errors import DataError, InputMissingError, TrtBlendMaskError
from trt_blendmask.runtime.model import load
from trt_blendmask.structures import METADATA_KEY, Frame, ModelSpec

Maker = Callable[..., Path]
FRAME = np.full((128, 192, 3), 100, np.uint8)  # twice the stub's input


def test_detections_are_in_frame_pixels_and_unclipped(stub_model: Maker) -> None:
    with load(stub_model()) as model:
        found = model(FRAME)
        assert len(found) == 3
        expected = [[16, 16, 80, 80], [100, 40, 240, 180], [-20, -12, 40, 32]]
        np.testing.assert_allclose(found.xyxy, expected, atol=1e-4)
        np.testing.assert_allclose(found.scores, [0.75, 0.6, 0.3], atol=1e-6)
        assert found.classes.tolist() == [1, 0, 1]
        assert found.masks.shape == (3, 8, 8)
        assert (found.xyxy.dtype, found.scores.dtype, found.masks.dtype) == (np.float32,) * 3
        assert found.classes.dtype == np.int32
        assert found.frame_wh == (192, 128)
        assert found.class_names == ("nut", "bolt")
        np.testing.assert_array_equal(model(Frame(FRAME)).xyxy, found.xyxy)


def test_results_outlive_the_next_call(stub_model: Maker) -> None:
    model = load(stub_model())
    first = model(FRAME)
    kept = first.masks.copy(), first.scores.copy()
    model(np.zeros((64, 96, 3), np.uint8))
    np.testing.assert_array_equal(first.masks, kept[0])
    np.testing.assert_array_equal(first.scores, kept[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0), (np.float16, 0), (np.uint8, 0.5 / 255)])
def test_mask_dtypes_become_probabilities(stub_model: Maker, dtype: type, tolerance: float) -> None:
    model_spec = replace(load(stub_model("plain.onnx")).spec, mask_dtype=np.dtype(dtype).name)
    masks = load(stub_model(spec=model_spec, mask_dtype=dtype))(FRAME).masks
    assert masks.dtype == np.float32
    assert np.abs(masks[:, 3, 3] - 0.75).max() <= tolerance
    assert np.abs(masks[:, 0, 0] - 0.25).max() <= tolerance


def test_best_first_whatever_the_graph_says(stub_model: Maker) -> None:
    found = load(stub_model(order=(2, 0, 1)))(FRAME)
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.3], atol=1e-6)
    np.testing.assert_allclose(found.xyxy[0], [16, 16, 80, 80], atol=1e-4)


def test_a_count_out_of_range_and_boxes_that_are_no_numbers(stub_model: Maker) -> None:
    broken = {"count": np.array([99], np.int32), "boxes": np.full((1, 5, 4), np.nan, np.float32)}
    broken["boxes"][0, 1] = [1, 2, 3, 4]
    found = load(stub_model(outputs=broken))(FRAME)
    np.testing.assert_allclose(found.xyxy, [[2, 4, 6, 8]], atol=1e-5)
    assert len(load(stub_model(outputs={"count": np.array([-4], np.int32)}))(FRAME)) == 0


def test_float32_input(stub_model: Maker) -> None:
    model_spec = replace(load(stub_model("plain.onnx")).spec, input_dtype="float32")
    assert len(load(stub_model(spec=model_spec))(FRAME)) == 3


def test_stream(stub_model: Maker, clip: Maker) -> None:
    model, source = load(stub_model()), clip(frames=4)
    pairs = list(model.stream(source))
    assert [frame.index for frame, _ in pairs] == [0, 1, 2, 3]
    assert all(found.frame_wh == frame.frame_wh == (160, 120) for frame, found in pairs)
    assert pairs[3][1].scores[0] > pairs[0][1].scores[0]


def test_stream_of_a_recording_that_breaks_off(stub_model: Maker, tmp_path: Path) -> None:
    path, seen = tmp_path / "a.mkv", 0
    recording(path, 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"a\.mkv' whole, but it breaks off after"):
        for _ in load(stub_model()).stream(path):
            seen += 1
    assert 10 < seen < 90


def test_closed_twice_and_then_called(stub_model: Maker) -> None:
    model = load(stub_model())
    model.close()
    model.close()
    with pytest.raises(DataError, match="was closed"):
        model(FRAME)


@pytest.mark.parametrize("frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_wrong_frames(stub_model: Maker, frame: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"uint8 \[H, W, 3\] BGR"):
        load(stub_model())(frame)


def one_sentence(path: Path, error: type[TrtBlendMaskError], *words: str) -> None:
    with pytest.raises(error) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_files_that_are_no_model(stub_model: Maker, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = stub_model().read_bytes()
    bad = tmp_path / "bad.onnx"
    one_sentence(bad, InputMissingError, "trt-blendmask surgery")
    one_sentence(tmp_path, InputMissingError, "folder")
    for content in (b"", good[: len(good) // 2], b"PK\x03\x04 a zip", b"words\n" * 40, bytes(1000)):
        bad.write_bytes(content)
        one_sentence(bad, DataError, "trt-blendmask surgery")
    assert capfd.readouterr() == ("", "")  # ONNX Runtime itself prints nothing


def raw_head(path: Path, with_metadata: bool) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("bases", "P3logits")]
    start = helper.make_tensor_value_info("input_image", TensorProto.FLOAT, [1, 4])
    nodes = [helper.make_node("Identity", ["input_image"], [end.name]) for end in ends]
    graph = helper.make_graph(nodes, "raw", [start], ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if with_metadata:
        spec = ModelSpec("raw-head", ("nut",), (64, 96), (8,), 4, 7)
        helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_raw_head_file_names_the_command_to_type(tmp_path: Path, with_metadata: bool) -> None:
    path = raw_head(tmp_path / "raw.onnx", with_metadata)
    one_sentence(path, DataError, "raw-head", f"trt-blendmask surgery {path} -o model.onnx")


def test_another_network(stub_model: Maker) -> None:
    one_sentence(stub_model(spec=None), DataError, "no trt_blendmask metadata", "--config YAML")


def test_a_contract_that_the_metadata_contradicts(stub_model: Maker) -> None:
    spec = load(stub_model("plain.onnx")).spec
    one_sentence(stub_model(spec=replace(spec, max_detections=7)), DataError, "'boxes'", "[1, 7, 4]", "[1, 5, 4]")
    path = stub_model()
    model = onnx.load(path)
    helper.set_model_props(model, {METADATA_KEY: replace(spec, input_hw=(32, 96)).to_json()})
    onnx.save(model, path)
    one_sentence(path, DataError, "'images'", "uint8 [1, 32, 96, 3]", "[1, 64, 96, 3]")
    one_sentence(stub_model(spec=replace(spec, mask_size=56)), DataError, "'masks'")
    wide = {"classes": np.zeros((1, 5), np.int64)}
    one_sentence(stub_model(outputs=wide), DataError, "'classes' int32 [1, 5]", "int64")


def test_an_open_batch_names_the_command_to_type(stub_model: Maker) -> None:
    path = stub_model()
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, path)
    one_sentence(path, DataError, "'images' uint8 [1, 64, 96, 3]", "[-1, 64, 96, 3]", "trt-blendmask surgery")


def test_onnxruntime_keeps_no_record_of_the_user(stub_model: Maker, tmp_path: Path) -> None:
    code = "import sys, trt_blendmask; trt_blendmask.load(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / "cache")}
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", code, str(stub_model())], env=environment, check=True)
    assert list((tmp_path / "home").iterdir()) == []
