"""The two halves of a deployable file: the same bits, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.surgery.graphs import run_model
from tests.surgery.test_end_to_end_files import TINY
from trt_blendmask.errors import DataError, OutputError, TrtBlendMaskError, UsageError
from trt_blendmask.surgery import SurgeryOptions, operate


def halves(raw: Path, folder: Path, **options: Any) -> tuple[bytes, bytes, bytes]:
    operate(raw, folder / "model.onnx", SurgeryOptions(split=True, nms="op", **options))
    whole, trunk, tail = ((folder / f"model{half}.onnx").read_bytes() for half in ("", ".trunk", ".tail"))
    return whole, trunk, tail


def shapes(values: Any) -> dict[str, list[int]]:
    return {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}


def assert_same(whole: bytes, trunk: bytes, tail: bytes, images: np.ndarray) -> None:
    wanted, first = run_model(whole, {"images": images}), run_model(trunk, {"images": images})
    for name in ("count", "boxes", "scores", "classes"):
        assert np.array_equal(first[name], wanted[name])
    feeds = {name: first[name] for name in ("bases", "boxes", "attention", "count")}
    masks = run_model(tail, feeds)["masks"]
    assert masks.dtype == wanted["masks"].dtype
    assert np.array_equal(masks, wanted["masks"])
    other = run_model(tail, feeds | {"attention": -first["attention"]})["masks"]
    assert not np.array_equal(other, wanted["masks"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiny_topk_dynamo18", {"top": "dense", "mask_dtype": "uint8", "max_detections": 250}),
        ("tiny_nms_legacy16", {"input_dtype": "float32"}),
        ("tiny_nmscap_legacy16", {"mask_dtype": "float16"}),
    ],
)
def test_whole_graphs(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    images = np.random.default_rng(4).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    normalised = (images.transpose(0, 3, 1, 2) - np.float32(110)) / np.float32(57)
    assert_same(*halves(TINY[name], tmp_path, **options), normalised if "input_dtype" in options else images)


def test_raw_heads(reference: Path, tmp_path: Path) -> None:
    whole, trunk, tail = halves(reference / "onnx" / "rt_r50_legacy.onnx", tmp_path, max_detections=50)
    images = np.random.default_rng(4).integers(0, 256, (1, 128, 160, 3), dtype=np.uint8)
    assert_same(whole, trunk, tail, images)
    first, second = onnx.load_from_string(trunk).graph, onnx.load_from_string(tail).graph
    assert shapes(first.output) == {
        "count": [1],
        "boxes": [1, 50, 4],
        "scores": [1, 50],
        "classes": [1, 50],
        "bases": [1, 4, 32, 40],
        "attention": [1, 50, 196],
    }
    assert shapes(second.input) == {
        name: shapes(first.output)[name] for name in ("bases", "boxes", "attention", "count")
    }
    assert shapes(second.output) == {"masks": [1, 50, 56, 56]}
    assert not any(node.op_type == "Conv" for node in second.node)


def test_a_half_is_no_input(tmp_path: Path) -> None:
    halves(TINY["tiny_topk_dynamo18"], tmp_path)
    for half in ("trunk", "tail"):
        with pytest.raises(DataError, match=f"the {half} that --split wrote"):
            operate(tmp_path / f"model.{half}.onnx", tmp_path / "again.onnx")
    with pytest.raises(DataError):
        operate(tmp_path / "model.tail.onnx", tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()


def test_all_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.tail.onnx").mkdir()
    with pytest.raises(OutputError, match="folder"):
        halves(TINY["tiny_topk_dynamo18"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tail.onnx"]
    raw = tmp_path / "model.trunk.onnx"
    raw.write_bytes(TINY["tiny_topk_dynamo18"].read_bytes())
    with pytest.raises(UsageError, match="overwrite"):
        operate(raw, tmp_path / "model.onnx", SurgeryOptions(split=True))


def test_no_halves_of_what_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw.onnx"
    raw.write_bytes(b"no ONNX")
    with pytest.raises(TrtBlendMaskError):
        operate(raw, tmp_path / "model.onnx", SurgeryOptions(split=True))
    assert [path.name for path in tmp_path.iterdir()] == ["raw.onnx"]
