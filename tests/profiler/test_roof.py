"""The roof of this machine: nothing that is measured here is far above it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from trt_blendmask.profiler import roof
from trt_blendmask.profiler.layers import profile_of, under_one_roof, under_roof
from trt_blendmask.profiler.report import Layer, ModelProfile, Roof


def test_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "_COPIED", 8 << 20)
    found = roof.measure_roof(threads=1)
    assert found.gmacs_per_s.keys() == {"FP32", "INT8"}
    a = np.random.default_rng(0).standard_normal((512, 512), np.float32)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    numpy_rate = 512**3 / 1e9 / min(times)  # by NumPy's own library, of several threads perhaps
    assert found.gmacs_per_s["FP32"] > numpy_rate / 20
    assert 0.1 < found.gbytes_per_s < 10_000
    assert "1 thread:" in found.how


def test_share_of_the_roof() -> None:
    top = Roof({"FP32": 10.0}, 2.0, "made up")  # 10e6 multiply-adds, 2e6 bytes in a millisecond

    def share(**fields: object) -> float | None:
        values: dict[str, object] = {"precision": "FP32", "macs": 0, "bytes": 0, "ms": 1.0} | fields
        layer = Layer("a", "tail", "Conv", shape=(1,), share=0.0, **values)  # type: ignore[arg-type]
        return under_roof(profile_of("TensorRT", 1, 1.0, [layer]), top).layers[0].roof_share

    assert share(macs=5_000_000) == pytest.approx(0.5)
    assert share(macs=5_000_000, bytes=1_600_000) == pytest.approx(0.8)
    assert share(bytes=100_000) == pytest.approx(0.05)
    assert share(macs=50_000_000) == 1.0  # faster than the roof: at it
    assert share() is None
    assert share(macs=5, ms=0.0) is None
    assert share(macs=5_000_000, precision="FP16") is None  # no such roof was measured


def test_the_fastest_layer_of_any_model_raises_the_roof() -> None:
    top = Roof({"FP32": 10.0, "INT8": 40.0}, 1e3, "made up")

    def model(tool: str, *rates: float) -> ModelProfile:
        """Layers of 1 ms at so many 10^9 multiply-adds in a second, and one of 1 us that is too short to be sure of."""
        work = [(rate, 1.0) for rate in rates] + [(99.0, 1e-3)]
        found = [Layer("a", "tail", "Conv", "FP32", (1,), int(1e6 * r * ms), 0, ms, 0.0) for r, ms in work]
        layers = profile_of(tool, 1, 1.0, found)
        return ModelProfile("m", "", "", "", "FP32", (1, 1), None, 1, layers=layers)

    def shares(model: ModelProfile) -> list[float | None]:
        assert model.layers
        return [layer.roof_share for layer in model.layers.layers]

    models = [model("ONNX Runtime", 5.0, 11.0), model("ONNX Runtime", 12.5), model("TensorRT", 50.0)]
    one, other, gpu = under_one_roof(models, top)
    assert shares(one) == pytest.approx([0.4, 0.88, 1.0])
    assert shares(other) == pytest.approx([1.0, 1.0])
    assert gpu == models[2]
    assert one.layers
    assert one.layers.roof == Roof(
        {"FP32": 12.5, "INT8": 40.0}, 1e3, "made up; in FP32 the fastest layer, as it beat these"
    )
    below = under_one_roof([model("ONNX Runtime", 5.0)], top)[0]
    assert below.layers
    assert below.layers.roof == top


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime leaves no trace or model behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(roof, "_COPIED", 1 << 20)
    roof.measure_roof()
    assert not list(tmp_path.iterdir())
