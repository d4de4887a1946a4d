"""A stub model whose answer is known, and short clips, for tests that need no trained network."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_blendmask.structures import METADATA_KEY, ModelSpec

INPUT_HW, SLOTS, SIDE, COUNT = (64, 96), 5, 8, 3
BOXES = np.array([[8, 8, 40, 40], [50, 20, 120, 90], [-10, -6, 20, 16]], np.float32)  # input pixels, unclipped
SCORES = np.array([0.9, 0.6, 0.3], np.float32)
CLASSES = np.array([1, 0, 1], np.int32)
MODEL_SPEC = ModelSpec(
    kind="deployable",
    class_names=("nut", "bolt"),
    input_hw=INPUT_HW,
    strides=(8, 16, 32),
    num_bases=4,
    attention_size=7,
    mask_size=SIDE,
    max_detections=SLOTS,
    input_dtype="uint8",
    mask_dtype="float32",
    top="sparse",
    tail="native",
)
ModelMaker = Callable[..., Path]


def stub_masks() -> np.ndarray:
    masks = np.full((COUNT, SIDE, SIDE), 0.25, np.float32)
    masks[:, 2:6, 2:6] = 0.75
    return masks


@pytest.fixture
def stub_model(tmp_path: Path) -> ModelMaker:
    """Writes a deployable ONNX that always finds the same three objects; the first one's score is the mean of the
    input divided by 1000, plus 0.65, so that a test can tell frames apart."""

    def make(
        name: str = "model.onnx",
        spec: ModelSpec | None = MODEL_SPEC,
        mask_dtype: type = np.float32,
        outputs: dict[str, np.ndarray] | None = None,
        order: tuple[int, ...] = (0, 1, 2),
    ) -> Path:
        planar = spec is not None and spec.input_dtype == "float32"
        image_type = TensorProto.FLOAT if planar else TensorProto.UINT8
        hw = spec.input_hw if spec else INPUT_HW
        shape = (1, 3, *hw) if planar else (1, *hw, 3)
        masks = stub_masks()
        masks = np.rint(masks * 255).astype(np.uint8) if mask_dtype is np.uint8 else masks.astype(mask_dtype)
        constants = {
            "count": np.array([COUNT], np.int32),
            "boxes": _slots(BOXES[list(order)])[None],
            "fixed_scores": _slots(SCORES[list(order)])[None],
            "classes": _slots(CLASSES[list(order)], -1)[None],
            "masks": _slots(masks)[None],
            "axis_scale": np.array([[1e-3] + [0] * (SLOTS - 1)], np.float32),
            "offset": np.array([[0.65 - 0.9] + [0] * (SLOTS - 1)], np.float32),
        } | (outputs or {})
        if order != (0, 1, 2):
            constants["axis_scale"][:] = constants["offset"][:] = 0
        nodes = [
            helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "axis_scale"], ["brightness"]),
            helper.make_node("Add", ["brightness", "offset"], ["shift"]),
            helper.make_node("Add", ["fixed_scores", "shift"], ["scores"]),
        ]
        ends = ["count", "boxes", "scores", "classes", "masks"]
        nodes += [
            helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value, key))
            for key, value in constants.items()
        ]
        constants["scores"] = constants["fixed_scores"]
        graph = helper.make_graph(
            nodes,
            "stub",
            [helper.make_tensor_value_info("images", image_type, shape)],
            [
                helper.make_tensor_value_info(
                    end, helper.np_dtype_to_tensor_dtype(constants[end].dtype), constants[end].shape
                )
                for end in ends
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if spec is not None:
            helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes an H.264 clip whose frames get brighter one by one."""

    def make(frames: int = 12, wh: tuple[int, int] = (160, 120), name: str = "clip.mp4", fps: int = 25) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=Fraction(fps))
            video.width, video.height, video.pix_fmt = *wh, "yuv420p"
            video.options = {"crf": "10", "preset": "ultrafast"}
            for i in range(frames):
                image = np.full((wh[1], wh[0], 3), 40 + 12 * (i % 16), np.uint8)
                image[:10, :10] = (0, 0, 255)
                for packet in video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")):
                    container.mux(packet)
            for packet in video.encode():
                container.mux(packet)
        return path

    return make


def _slots(values: np.ndarray, empty: float = 0) -> np.ndarray:
    padded = np.full((SLOTS, *values.shape[1:]), empty, values.dtype)
    padded[: len(values)] = values
    return padded
