"""The bundled model, and others made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.quick_model import quick_model
from trt_blendmask.structures import METADATA_KEY, ModelSpec
from trt_blendmask.synthetic import render_scene


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), render_scene(99, index, (512, 288)).image)
    return folder


@pytest.fixture(scope="session")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[onnx.ModelProto], None]], Path]:
    """A copy of the bundled model, changed."""

    def make(name: str, change: Callable[[onnx.ModelProto], None]) -> Path:
        model = onnx.load(quick_model())
        change(model)
        path = tmp_path_factory.mktemp(name) / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return make


def flip(model: onnx.ModelProto) -> None:
    """The picture reaches the network with left and right swapped; what it finds is not swapped back."""
    values = {"starts": [-1], "ends": [np.iinfo(np.int64).min], "axes": [2], "steps": [-1]}
    for key, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"flip.{key}"))
    for node in model.graph.node:
        node.input[:] = ["flip.images" if name == "images" else name for name in node.input]
    inputs = ["images", *(f"flip.{key}" for key in values)]
    model.graph.node.insert(0, helper.make_node("Slice", inputs, ["flip.images"], "flip"))


def shake(part: str, size: float) -> Callable[[onnx.ModelProto], None]:
    """Noise on the weights whose names begin with `part`."""

    def change(model: onnx.ModelProto) -> None:
        random = np.random.default_rng(0)
        for tensor in model.graph.initializer:
            if tensor.name.startswith(part) and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
                weight = numpy_helper.to_array(tensor)
                noise = random.normal(0, size * weight.std(), weight.shape)
                tensor.CopyFrom(numpy_helper.from_array((weight + noise).astype(np.float32), tensor.name))

    return change


def rename(names: tuple[str, ...], numbers_too: bool = False) -> Callable[[onnx.ModelProto], None]:
    """Other class names in the metadata; `numbers_too`: the old ones turned by one, and what is found follows."""

    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = replace(ModelSpec.from_json(entry.value), class_names=names).to_json()
        if numbers_too:
            for node in model.graph.node:
                node.output[:] = ["turned.from" if name == "classes" else name for name in node.output]
            table = np.roll(np.arange(len(names), dtype=np.int32), 1)
            model.graph.initializer.append(numpy_helper.from_array(table, "turned.table"))
            model.graph.node.append(helper.make_node("Gather", ["turned.table", "turned.from"], ["classes"], "turned"))

    return change
