"""Builds of graphs with the plugin: its library is checked and loaded before the parser, and TensorRT-RTX gets none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.engines import tiny
from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.engines.operation import build
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError

Calls = Callable[[], list[str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "model.onnx")


def test_plugin_tail(calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, library = tiny.write(tmp_path / "model.onnx", "plugin"), tmp_path / "plugin.so"
    with pytest.raises(InputMissingError, match="make plugin"):
        build(model, options=BuildOptions(plugin=library))
    library.write_bytes(b"code")
    library.chmod(0o666)
    with pytest.raises(NotTrustedError, match="chmod go-w"):
        build(model, options=BuildOptions(plugin=library))
    library.chmod(0o644)
    assert "parse" not in calls()
    monkeypatch.setenv("FAKE_TENSORRT", "bad-plugin")
    with pytest.raises(DataError, match="cannot load it"):
        build(model, options=BuildOptions(plugin=library))
    assert "parse" not in calls(), "its parser would end the process"
    monkeypatch.setenv("FAKE_TENSORRT", "")
    info = build(model, options=BuildOptions(plugin=library, embed_plugin=True))
    assert info.plugin_sha256 == hashlib.sha256(b"code").hexdigest()
    assert info.options == {"embed_plugin": True}
    assert calls().index(f"load_library {library}") < calls().index("parse")
    assert f"plugins_to_serialize ['{library}']" in calls()


@pytest.mark.parametrize("hiding", ["inner graph", "function"])
def test_plugin_in_hiding_never_reaches_rtx(
    model: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls, hiding: str
) -> None:
    loaded = onnx.load(model)
    node = onnx.helper.make_node("RoiAlignBlend", ["x"], ["y"], domain="trt_blendmask")
    if hiding == "function":
        body = onnx.helper.make_function("ours", "F", ["x"], ["y"], [node], loaded.opset_import)
        loaded.functions.append(body)
    else:
        inner = onnx.helper.make_graph([node], "inner", [], [])
        loaded.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))
    onnx.save(loaded, model)
    rtx = Flavor("rtx", None, (1, 7))
    monkeypatch.setattr("trt_blendmask.engines.operation.find", lambda _: rtx)
    with pytest.raises(DataError, match="has no plugin layers"):
        build(model)
    assert calls() == []


@pytest.mark.usefixtures("calls")
def test_plugin_that_changes_while_others_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, library = tiny.write(tmp_path / "model.onnx", "plugin"), tmp_path / "plugin.so"
    library.write_bytes(b"code")
    monkeypatch.setattr("trt_blendmask.engines.operation.sweep", lambda *_: library.write_bytes(b"other code"))
    with pytest.raises(DataError, match=r"plugin.so.*was changed"):
        build(model, options=BuildOptions(plugin=library))
    assert not model.with_suffix(".engine").exists()
