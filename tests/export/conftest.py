"""Builders for small checkpoints, configs and hostile files, and the runs that judge exported graphs."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trt_blendmask.export import assemble, read_config
from trt_blendmask.export.reader import Checkpoint
from trt_blendmask.export.weights import Weights

SMALL: dict[str, Any] = {
    "META_ARCHITECTURE": "BlendMask",
    "BACKBONE": {"NAME": "build_fcos_resnet_fpn_backbone"},
    "RESNETS": {
        "DEPTH": 18,
        "NORM": "BN",
        "STEM_OUT_CHANNELS": 8,
        "RES2_OUT_CHANNELS": 8,
        "WIDTH_PER_GROUP": 4,
        "OUT_FEATURES": ["res3", "res4", "res5"],
    },
    "FPN": {"IN_FEATURES": ["res3", "res4", "res5"], "OUT_CHANNELS": 32},
    "PROPOSAL_GENERATOR": {"NAME": "FCOS"},
    "FCOS": {
        "NUM_CLASSES": 3,
        "TOP_LEVELS": 0,
        "NUM_SHARE_CONVS": 2,
        "NUM_CLS_CONVS": 0,
        "NUM_BOX_CONVS": 0,
        "NORM": "BN",
        "USE_SCALE": False,
        "THRESH_WITH_CTR": True,
    },
    "BASIS_MODULE": {"CONVS_DIM": 16, "NUM_CONVS": 2, "NORM": "BN", "NUM_BASES": 4},
    "BLENDMASK": {"ATTN_SIZE": 3, "BOTTOM_RESOLUTION": 28},
}


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small config; the argument holds sections to change, as {"FCOS": {"NORM": "GN"}}."""

    def write(changes: dict[str, dict[str, Any]] | None = None, name: str = "small.yaml") -> Path:
        model = {key: {**value, **(changes or {}).get(key, {})} if isinstance(value, dict) else value
                 for key, value in SMALL.items()}  # fmt: skip
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"MODEL": model, "INPUT": {"SIZE_HW": [64, 96]}}))
        return path

    return write


class _Drawn(Weights):
    """Weights that are drawn when the exporter asks for them: whatever a configuration needs, it gets."""

    def __init__(self) -> None:
        super().__init__(Checkpoint(Path("none"), {}, ()), "none")
        self.random = np.random.default_rng(7)
        self.state: dict[str, np.ndarray] = {}

    def take(self, key: str, shape: tuple[int, ...], why: str) -> Any:  # noqa: ARG002
        if key not in self.state:
            size = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.3
            value = self.random.normal(1.0 if len(shape) == 1 and key.endswith("weight") else 0.0, size, shape)
            if key.endswith(("running_var", "scale")):
                value = self.random.uniform(0.5, 2, shape)
            if "offset" in key:  # a pixel or two, so that most taps stay inside the small picture
                value = value / 8
            self.state[key] = value.astype(np.float32)
        return self.state[key]

    def channels(self, key: str, usual: int) -> int:  # noqa: ARG002
        return usual // 4

    def finish(self) -> tuple[str, ...]:
        return ()


@pytest.fixture
def random_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a checkpoint of a config with every weight, norm vector and statistic random; `changes` by key."""

    def write(config: Path, changes: dict[str, Callable[[np.ndarray], np.ndarray]] | None = None) -> Path:
        from safetensors.numpy import save_file

        drawn, settings = _Drawn(), read_config(config)
        with monkeypatch.context() as patch:
            patch.setattr(assemble, "Weights", lambda *_: drawn)
            assemble.build_model(Checkpoint(Path("none"), {}, ()), settings, settings.model_spec())
        changed = {key: change(drawn.state[key]) for key, change in (changes or {}).items()}
        path = tmp_path / "random.safetensors"
        save_file({**drawn.state, **changed}, path)
        return path

    return write


@pytest.fixture
def heads() -> Callable[..., dict[str, np.ndarray]]:
    """Runs a raw-head model file (or its bytes) in ONNX Runtime; outputs by name."""
    import onnxruntime

    def run(model: Path | bytes, images: np.ndarray) -> dict[str, np.ndarray]:
        source = model if isinstance(model, bytes) else str(model)
        session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {"input_image": images}), strict=True))

    return run


@pytest.fixture
def worst() -> Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], float]:
    """The largest error of any output that both have, relative to max(1, the largest value of that output)."""

    def ratio(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
        common = [name for name in got if name in expected]
        assert "bases" in common
        assert all(got[name].shape == expected[name].shape for name in common)
        return max(float(np.abs(got[n] - expected[n]).max() / max(1.0, np.abs(expected[n]).max())) for n in common)

    return ratio


@pytest.fixture
def zip_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a .pth of the zip form around any pickle bytes."""

    def write(pickled: bytes, records: dict[str, bytes] | None = None, name: str = "hostile.pth") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/byteorder", b"little")
            for key, data in (records or {}).items():
                archive.writestr(f"archive/data/{key}", data)
        return path

    return write


class _TorchGlobal:
    """Stands for a class or function of torch in a pickle, without torch."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    def __init__(self, function: _TorchGlobal, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class _Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.identity = ("storage", _TorchGlobal("torch", kind), key, "cpu", count)


class _Pickler(pickle._Pickler):  # the Python one: its `save` can be taught names that cannot be imported
    def persistent_id(self, thing: Any) -> Any:
        return thing.identity if isinstance(thing, _Storage) else None

    def save(self, thing: Any, save_persistent_id: bool = True) -> None:
        if isinstance(thing, _TorchGlobal):
            self.write(pickle.GLOBAL + f"{thing.module}\n{thing.name}\n".encode())
        elif isinstance(thing, _Call):
            self.save(thing.function)
            self.save(thing.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(thing, save_persistent_id)


@pytest.fixture
def dump() -> Callable[[Any], bytes]:
    """Pickles a tree as torch.save would; see `tensor`."""

    def write(tree: Any) -> bytes:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=2).dump(tree)
        return buffer.getvalue()

    return write


@pytest.fixture
def tensor() -> Callable[..., Any]:
    """A tensor for `dump`: storage kind and key, its element count, offset, sizes, strides."""

    def make(kind: str, key: str, count: Any, offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...]) -> Any:
        rebuild = _TorchGlobal("torch._utils", "_rebuild_tensor_v2")
        return _Call(rebuild, _Storage(kind, key, count), offset, size, stride, False, {})

    return make
