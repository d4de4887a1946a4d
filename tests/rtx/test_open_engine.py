"""The real TensorRT-RTX has what `engines.engine` calls, and gets no byte of an engine that does not fit.

Without a GPU nothing is deserialised. What the runtime half of the test double (tests/engines/fake_runtime.py) has is
looked for here, so that it does not drift from the module it stands for.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx as trt

from tests.conftest import has_gpu
from tests.engines import fake_runtime
from tests.engines.fake_runtime import DEVICE, SPEC, FakeTensorRT, put_pair
from trt_blendmask.engines import engine as module
from trt_blendmask.engines.engine import DTYPES, open_engine
from trt_blendmask.engines.flavor import find
from trt_blendmask.errors import DataError, SourceUnavailableError, TrtBlendMaskError


def test_what_the_double_has_the_module_has() -> None:
    pairs: list[tuple[Any, Any]] = [
        (FakeTensorRT(), trt),
        (fake_runtime._Runtime(FakeTensorRT(), None), trt.Runtime),
        (fake_runtime._Engine(FakeTensorRT(), None), trt.ICudaEngine),
    ]
    ours = {"fails", "says", "calls", "deserialized", "plugins", "host_code", "dla_core"}
    for double, real in pairs:
        names = {name for name in dir(double) if not name.startswith("_")} - ours
        assert {name for name in names if not hasattr(real, name)} == set()
        methods = {name for name in names if inspect.ismethod(getattr(double, name))}
        assert {name for name in methods if not callable(getattr(real, name))} == set()
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
    assert hasattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    assert {"INPUT", "OUTPUT"} <= set(trt.TensorIOMode.__members__)
    assert {"ERROR", "INTERNAL_ERROR"} <= set(trt.ILogger.Severity.__members__)
    assert set(DTYPES) <= set(trt.DataType.__members__)
    assert {"get_creator", "load_library"} <= set(dir(trt.IPluginRegistry))


def test_types_mean_the_same_to_numpy() -> None:
    for name, dtype in DTYPES.items():
        assert trt.nptype(getattr(trt.DataType, name)).__name__.rstrip("_") == dtype


def test_the_logger_collects_what_the_real_severities_say() -> None:
    log = module._log(trt)
    log.log(trt.ILogger.Severity.WARNING, "a warning")
    log.log(trt.ILogger.Severity.ERROR, "an error.\nmore")
    assert (log.errors, log.reason()) == (["an error.\nmore"], ": an error")


@pytest.fixture
def plan() -> bytes:
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    images = network.add_input("images", trt.float32, (1, 4))
    network.mark_output(network.add_activation(images, trt.ActivationType.RELU).get_output(0))
    return bytes(builder.build_serialized_network(network, builder.create_builder_config()))


def refused(engine: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> TrtBlendMaskError:
    """How it is refused; that it is, before a runtime is made."""
    runtimes: list[object] = []
    monkeypatch.setattr(trt, "Runtime", lambda log: runtimes.append(log))
    with pytest.raises(TrtBlendMaskError) as caught:
        open_engine(engine, **options)
    assert runtimes == []
    return caught.value


def test_a_real_engine_and_what_is_wrong_with_it(tmp_path: Path, plan: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, version = tmp_path / "F.engine", trt.__version__
    right = {"flavor": "rtx", "tensorrt_version": version, "compute_capability": ""}
    put_pair(engine, plan, **right | {"tensorrt_version": "1.0.0.1"})
    error = refused(engine, monkeypatch)
    assert isinstance(error, DataError)
    assert f"TensorRT-RTX {version}, which is installed, but '{engine}' was built with TensorRT-RTX 1.0.0.1" in str(
        error
    )
    put_pair(engine, plan, **right | {"options": {"compute_capability": ["8.6"]}})
    with monkeypatch.context() as patch:
        patch.setattr(module, "find_device", lambda: DEVICE)
        assert "was built for 8.6" in str(refused(engine, patch))
    put_pair(engine, plan, **right)
    engine.write_bytes(plan[:-1])
    assert f"{len(plan) - 1} bytes, not {len(plan)}" in str(refused(engine, monkeypatch))


@pytest.mark.skipif(has_gpu(), reason="the sentence for machines without a GPU")
def test_a_real_engine_without_a_gpu(tmp_path: Path, plan: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "F.engine"
    put_pair(engine, plan, flavor="rtx", tensorrt_version=find("rtx").version_text, compute_capability="", spec=SPEC)
    assert isinstance(refused(engine, monkeypatch), SourceUnavailableError)
