"""What TensorRT complains about, told in our words; through a build where the way there matters."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.engines import tiny
from trt_blendmask.engines.build import BuildRefusedError
from trt_blendmask.engines.complaints import explain
from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.engines.operation import build
from trt_blendmask.errors import DataError, SourceUnavailableError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "model.onnx")


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("op", "how", "words"),
    [
        ("NonZero", "parse", ("NonZero 'backbone.res2.conv1' in the backbone", "--nms matrix")),
        ("Sigmoid", "parse-bytes", ("Sigmoid", "surgery raw.onnx")),
        ("Relu", "parse", ("Relu 'backbone.res2.conv1' in the backbone (1x4x4x6 -> 1x4x4x6)", "surgery raw.onnx")),
        ("Identity", "parse", ("Identity 'outputs.count'", "nor 3 more")),
    ],
)
def test_parser_errors_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str, how: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FAKE_TENSORRT", how)
    monkeypatch.setenv("FAKE_TENSORRT_OP", op)
    model = tiny.write(tmp_path / "model.onnx", op="NonZero" if op == "NonZero" else "Relu")
    with pytest.raises(DataError) as caught:
        build(model)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 15 bytes.)", SourceUnavailableError, ("memory", "--workspace")),
        ("Error Code 1: Cuda Runtime (In f: cudaError 100)", SourceUnavailableError, ("doctor", "--flavor rtx")),
        ("no kernel image is available for execution", SourceUnavailableError, ("does not know this GPU",)),
        ("backbone.stem_12 has no runners", DataError, ("Conv 'backbone.stem' in the backbone", "no runners")),
        ("Error Code 4: Internal Error (something)", DataError, ("(something)", "surgery raw.onnx")),
    ],
)
def test_builder_errors_in_our_words(model: Path, said: str, kind: type[Exception], words: tuple[str, ...]) -> None:
    told = explain(BuildRefusedError("build", [], [said]), Flavor("tensorrt", None, (10, 3)), onnx.load(model), model)
    assert type(told) is kind
    assert all(word in str(told) for word in words), str(told)


@pytest.mark.usefixtures("calls")
def test_the_log_of_the_builder_arrives(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TENSORRT_SAYS", "backbone.stem_12 has no runners")
    with pytest.raises(DataError, match=r"Conv 'backbone.stem' in the backbone .*no runners"):
        build(model)
