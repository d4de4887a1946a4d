"""`--rebuild`: from the recorded ONNX, with the recorded options, or a sentence that says why not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.engines.fake_runtime import DEVICE, VERSION, FakeTensorRT, fake_flavor, plan_of, put_pair
from trt_blendmask.engines import engine as module
from trt_blendmask.engines import operation
from trt_blendmask.engines.engine import open_engine
from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.passport import passport_path, waiting_path
from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError, TrtBlendMaskError
from trt_blendmask.structures import EngineInfo

OLD, NEW = plan_of(1), plan_of(2)
ONNX = b"an ONNX model"


class Built:
    """In the place of `operation.build`: publishes `NEW` and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Path, Path, BuildOptions]] = []

    def __call__(self, model: Path, output: Path, options: BuildOptions) -> EngineInfo:
        self.told.append((model, output, options))
        return put_pair(output, NEW, onnx_sha256=hashlib.sha256(model.read_bytes()).hexdigest())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    built = Built()
    monkeypatch.setattr(operation, "build", built)
    monkeypatch.setattr(module, "find_device", lambda: DEVICE)
    return built


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(ONNX)
    return tmp_path / "F.engine"


def put_old(engine: Path, **changes: Any) -> None:
    put_pair(engine, OLD, **{"onnx_sha256": hashlib.sha256(ONNX).hexdigest(), "tensorrt_version": "9.0.0.1"} | changes)


def opened(engine: Path, **options: Any) -> bytes:
    """The plan that was deserialised in the end."""
    trt = FakeTensorRT()
    open_engine(engine, flavor=fake_flavor(trt), rebuild=True, **options).close()
    return trt.deserialized[-1]


def test_an_engine_of_another_version_is_built_again(engine: Path, built: Built) -> None:
    put_old(engine, options={"opt_level": 4, "profile": [1, 2, 4], "hardware_compatible": "ampere+"})
    with pytest.raises(DataError, match="--rebuild"):
        open_engine(engine, flavor=fake_flavor(FakeTensorRT()))
    assert built.told == []
    assert opened(engine) == NEW
    options = BuildOptions(flavor="tensorrt", opt_level=4, profile=(1, 2, 4), hardware_compatible="ampere+")
    assert built.told == [(engine.parent / "model.onnx", engine, options)]
    assert opened(engine) == NEW  # which fits
    assert len(built.told) == 1


def test_a_damaged_plan_is_built_again(engine: Path, built: Built) -> None:
    put_old(engine)
    engine.write_bytes(OLD[:100])
    assert opened(engine) == NEW
    assert len(built.told) == 1


def test_the_trusted_hash_was_of_the_engine_before(engine: Path, built: Built) -> None:
    put_old(engine)
    assert opened(engine, trust=hashlib.sha256(OLD).hexdigest()) == NEW
    assert len(built.told) == 1


def test_after_a_kill_the_passport_that_waits_is_the_one(engine: Path, built: Built) -> None:
    put_pair(engine, NEW, onnx_sha256="1" * 64)
    old = passport_path(engine).read_bytes()
    put_old(engine)
    passport_path(engine).rename(waiting_path(engine))
    passport_path(engine).write_bytes(old)
    passport_path(engine).chmod(0o644)
    assert opened(engine) == NEW
    assert len(built.told) == 1


@pytest.mark.parametrize(
    ("kind", "words", "damage"),
    [
        (InputMissingError, r"the ONNX that .* was built from.*no such file.*trt-blendmask build", "gone"),
        (DataError, r"has changed since.*trt-blendmask build .*model.onnx -o", "changed"),
        (DataError, "changed or damaged since", "passport"),
        (NotTrustedError, "only you can write", "permissions"),
        (DataError, "another version of trt-blendmask", "options"),
        (NotTrustedError, "trust-engine", "no passport"),
    ],
)
def test_what_cannot_be_built_again(
    engine: Path, built: Built, kind: type[TrtBlendMaskError], words: str, damage: str
) -> None:
    put_old(engine, options={"option_of_tomorrow": 1} if damage == "options" else {})
    passport = passport_path(engine)
    if damage == "gone":
        (engine.parent / "model.onnx").unlink()
    elif damage == "changed":
        (engine.parent / "model.onnx").write_bytes(b"another")
    elif damage == "passport":
        passport.write_bytes(passport.read_bytes().replace(b"9.0.0.1", b"9.0.0.2"))
    elif damage == "permissions":
        passport.chmod(0o666)
    elif damage == "no passport":
        passport.unlink()
    with pytest.raises(kind, match=words):
        opened(engine)
    assert built.told == []
    assert engine.read_bytes() == OLD


def test_without_a_gpu_nothing_is_built(engine: Path, built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_device", lambda: None)
    put_old(engine, tensorrt_version=".".join(map(str, VERSION[:3])))
    with pytest.raises(DataError, match="--rebuild"):
        opened(engine)
    assert built.told == []
