"""What TensorRT-RTX says of its layers today is what the recorded files hold, and each finds its part."""

from __future__ import annotations

import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.rtx.layer_information import layer_information, parsed
from trt_blendmask.bundled import CHECKPOINT, CONFIG
from trt_blendmask.export import export_onnx
from trt_blendmask.profiler.layers.inspector import infos_of, layers_of
from trt_blendmask.quantize.fp16 import quantize_fp16
from trt_blendmask.surgery import SurgeryOptions, operate
from trt_blendmask.surgery.macs import count_macs, macs_by_node

RECORDED = Path(__file__).parent.parent / "profiler" / "data"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those of the recorded files, see the README there."""
    folder = tmp_path_factory.mktemp("models")
    raw = export_onnx(CHECKPOINT, CONFIG, folder / "raw.onnx", input_hw=(128, 160)).output
    operate(raw, folder / "fp32.onnx", SurgeryOptions(max_detections=4))
    quantize_fp16(folder / "fp32.onnx", folder / "fp16.onnx")
    return {name: folder / f"{name}.onnx" for name in ("fp32", "fp16")}


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_of(inner)}
    return {key for inner in value for key in keys_of(inner)} if isinstance(value, list) else set()


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_layers(models: dict[str, Path], name: str) -> None:
    values = layer_information(models[name])
    model = onnx.load(models[name])
    infos = infos_of(values)
    layers = layers_of(infos, [(info.name, 1.0, 0.0) for info in infos], {n.name: m for n, _, m in macs_by_node(model)})
    found = Counter[str]()
    for layer in layers:
        found[layer.part.split(".")[0]] += layer.macs
    assert +found == +Counter(count_macs(model)), "work was lost, or put into another part"
    assert {layer.op for layer in layers if layer.part == "other"} <= {"signal", "wait"}
    recorded = lzma.decompress((RECORDED / f"rtx_1_7_{name}.json.xz").read_bytes()).decode()
    for key in ("Name", "LayerType", "Inputs", "Outputs", "Datatype", "Dimensions", "TacticName", "Metadata"):
        assert key in keys_of(values)
        assert f'"{key}"' in recorded


def test_the_listing_is_read_to_the_end() -> None:
    text = (
        "Layers:\nName: a_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,2], Format: (NHWC) major }, "
        "{ Name: y, Dimensions: [] }], Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: b, c]\n\n"
        "I/O Tensors:\n Name: x, ProfileInfo: [ { Format: Row major (kLINEAR) }]\n"
    )
    inputs = [{"Name": "x", "Dimensions": [1, 2], "Format": "(NHWC) major"}, {"Name": "y", "Dimensions": []}]
    assert parsed(text) == {
        "Layers": [
            {
                "Name": "a_1",
                "LayerType": "gemm",
                "Inputs": inputs,
                "Outputs": [],
                "TacticName": "",
                "StreamId": 0,
                "Metadata": "[ONNX Layer: b, c]",
            }
        ],
        "I/O Tensors": [{"Name": "x", "ProfileInfo": [{"Format": "Row major (kLINEAR)"}]}],
    }
