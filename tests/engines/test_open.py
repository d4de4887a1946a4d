"""Engines that fit are opened; each that does not is refused in words of its own, before TensorRT sees a byte."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.engines.fake_runtime import (
    DEVICE,
    INPUTS,
    OUTPUTS,
    FakeTensorRT,
    fake_flavor,
    plan_of,
    put_pair,
)
from trt_blendmask.engines import engine as module
from trt_blendmask.engines import plugin as plugins
from trt_blendmask.engines.device import Device
from trt_blendmask.engines.engine import open_engine
from trt_blendmask.engines.passport import passport_path
from trt_blendmask.errors import (
    DataError,
    InputMissingError,
    NotTrustedError,
    SourceUnavailableError,
    TrtBlendMaskError,
    UsageError,
)
from trt_blendmask.structures import EngineInfo

PLAN = plan_of()
HASH = hashlib.sha256(PLAN).hexdigest()


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_device", lambda: DEVICE)


@pytest.fixture
def trt() -> FakeTensorRT:
    return FakeTensorRT()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    put_pair(tmp_path / "F.engine", PLAN)
    return tmp_path / "F.engine"


def refused(
    path: Path, trt: FakeTensorRT, kind: type[TrtBlendMaskError], words: str, **options: Any
) -> TrtBlendMaskError:
    """That the engine is refused so, in one sentence with something to type, and that TensorRT was not called."""
    options.setdefault("flavor", fake_flavor(trt))
    with pytest.raises(TrtBlendMaskError) as caught:
        open_engine(path, **options)
    assert type(caught.value) is kind, caught.value
    assert re.search(words, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert trt.calls == []
    return caught.value


def test_an_engine_with_its_passport_opens(engine: Path, trt: FakeTensorRT) -> None:
    with open_engine(engine, flavor=fake_flavor(trt)) as opened:
        assert (opened.inputs, opened.outputs) == (INPUTS, OUTPUTS)
        assert opened.info is not None
        assert opened.info.plan_sha256 == opened.plan_sha256 == HASH
        assert opened.context() is not opened.context()
        assert opened.device_bytes() == 5 << 20
    assert trt.deserialized == [PLAN]
    assert not trt.host_code
    with pytest.raises(DataError, match="closed"):
        opened.context()


def test_a_link_to_an_engine_opens(engine: Path, trt: FakeTensorRT, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "current.engine"
    link.parent.mkdir()
    link.symlink_to(engine)
    open_engine(link, flavor=fake_flavor(trt)).close()
    assert trt.deserialized == [PLAN]


def test_an_engine_for_an_accelerator(tmp_path: Path, trt: FakeTensorRT) -> None:
    put_pair(tmp_path / "F.engine", PLAN, options={"dla": 0})
    open_engine(tmp_path / "F.engine", flavor=fake_flavor(trt))
    assert trt.dla_core == 0


@pytest.mark.parametrize("flag", ["version_compatible", "embed_plugin"])
def test_host_code_is_allowed_only_where_the_passport_says_that_it_is_there(
    tmp_path: Path, trt: FakeTensorRT, flag: str
) -> None:
    put_pair(tmp_path / "F.engine", PLAN, options={flag: True})
    open_engine(tmp_path / "F.engine", flavor=fake_flavor(trt))
    assert trt.host_code


def test_a_plan_without_its_lean_runtime(tmp_path: Path, trt: FakeTensorRT) -> None:
    path = tmp_path / "F.engine"
    put_pair(path, PLAN, options={"version_compatible": True, "exclude_lean": True}, tensorrt_version="10.3.0.26")
    open_engine(path, flavor=fake_flavor(trt))
    assert "load_runtime libnvinfer_lean.so.10" in trt.calls
    assert not trt.host_code  # the plan holds none
    trt = FakeTensorRT("lean")
    with pytest.raises(SourceUnavailableError, match=r"libnvinfer_lean.so.10.*10\.3\.0\.26.*--exclude-lean"):
        open_engine(path, flavor=fake_flavor(trt))
    assert trt.deserialized == []


def test_what_is_deserialised_is_what_was_hashed(
    engine: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap() -> Device:
        engine.write_bytes(b"ftrt" + b"evil")
        return DEVICE

    monkeypatch.setattr(module, "find_device", swap)
    open_engine(engine, flavor=fake_flavor(trt))
    assert [hashlib.sha256(plan).hexdigest() for plan in trt.deserialized] == [HASH]


def test_missing_empty_and_foreign_files(tmp_path: Path, trt: FakeTensorRT) -> None:
    path = tmp_path / "F.engine"
    refused(path, trt, InputMissingError, "no such file.*trt-blendmask build")
    refused(tmp_path, trt, InputMissingError, "folder")
    path.write_bytes(b"")
    refused(path, trt, DataError, "empty")
    path.write_bytes(b"\x08\x09\x12\x05torch" + b"x" * 99)
    refused(path, trt, DataError, "an ONNX model.*trt-blendmask build")
    path.write_bytes((200).to_bytes(4, "little") + b'{"stride": 32}' + PLAN)
    refused(path, trt, DataError, "Expected an engine", trust=hashlib.sha256(path.read_bytes()).hexdigest())


def test_an_engine_without_a_passport_needs_its_hash(engine: Path, trt: FakeTensorRT) -> None:
    passport_path(engine).unlink()
    refused(engine, trt, NotTrustedError, "--trust-engine SHA256")
    refused(engine, trt, NotTrustedError, f"{HASH}", trust="1" * 64)
    refused(engine, trt, UsageError, "64 hex digits.*sha256sum", trust="cafe")
    opened = open_engine(engine, trust=HASH.upper(), flavor=fake_flavor(trt))
    assert opened.info is None
    assert opened.inputs == INPUTS
    assert trt.deserialized == [PLAN]


def test_a_damaged_plan_says_how(engine: Path, trt: FakeTensorRT) -> None:
    engine.write_bytes(PLAN[:-1])
    refused(engine, trt, DataError, f"{len(PLAN) - 1} bytes, not {len(PLAN)}.*--rebuild.*trt-blendmask build")
    engine.write_bytes(PLAN[:-1] + b"\0")
    refused(engine, trt, DataError, "damaged or is another one.*--rebuild")
    refused(engine, trt, NotTrustedError, "that you trust", trust=HASH)


def test_a_passport_edited_by_hand(engine: Path, trt: FakeTensorRT) -> None:
    passport = passport_path(engine)
    passport.write_text(passport.read_text().replace("Pretend GPU", "Another GPU"))
    refused(engine, trt, DataError, "changed or damaged since.*trt-blendmask build")


def test_a_passport_of_another_version(engine: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EngineInfo.to_json
    monkeypatch.setattr(EngineInfo, "to_json", lambda info: real(info).replace('"driver"', '"driver_of_tomorrow"'))
    put_pair(engine, PLAN)
    refused(engine, trt, DataError, "another version of trt-blendmask.*trt-blendmask build")


@pytest.mark.parametrize(
    "options", [{"weight_streaming": True}, {"compute_capability": 5}, {"profile": [1, 2]}, {"opt_level": 9}], ids=str
)
def test_options_of_another_version(engine: Path, trt: FakeTensorRT, options: dict[str, Any]) -> None:
    put_pair(engine, PLAN, options=options)
    refused(engine, trt, DataError, "another version of trt-blendmask.*trt-blendmask build")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o777])
def test_files_that_others_can_write(engine: Path, trt: FakeTensorRT, mode: int) -> None:
    engine.chmod(mode)
    refused(engine, trt, NotTrustedError, "only you can write.*chmod go-w")
    open_engine(engine, flavor=fake_flavor(trt), trust=HASH)  # the hash says what the permissions cannot
    trt.calls.clear()
    engine.chmod(0o600)
    passport_path(engine).chmod(mode)
    refused(engine, trt, NotTrustedError, "F.engine.json.*only you can write|only you can write.*F.engine.json")


VERSIONS = [
    ("tensorrt", "10.13.3.9", (10, 13, 3, 9), {}, True),
    ("tensorrt", "10.13.3.8", (10, 13, 3, 9), {}, False),
    ("tensorrt", "10.3.0.26", (10, 13, 3, 9), {"version_compatible": True}, True),
    ("tensorrt", "10.3.0.26", (11, 0, 0, 1), {"version_compatible": True}, True),
    ("tensorrt", "10.14.0.1", (10, 13, 3, 9), {"version_compatible": True}, False),
    ("tensorrt", "11.0.0.1", (12, 0, 0, 1), {"version_compatible": True}, False),
    ("tensorrt", "8.6.1.6", (10, 13, 3, 9), {}, False),
    ("rtx", "1.7.1.116", (1, 7, 1, 116), {}, True),
    ("rtx", "1.6.0.100", (1, 7, 1, 116), {}, False),
    ("rtx", "1.6.0.100", (1, 7, 1, 116), {"version_compatible": True}, False),
]


@pytest.mark.parametrize(("name", "built", "installed", "options", "fits"), VERSIONS)
def test_versions(
    tmp_path: Path,
    trt: FakeTensorRT,
    name: str,
    built: str,
    installed: tuple[int, ...],
    options: dict[str, Any],
    fits: bool,
) -> None:
    path = tmp_path / "F.engine"
    put_pair(path, PLAN, flavor=name, tensorrt_version=built, options=options)
    flavor = fake_flavor(trt, name, installed)
    if fits:
        open_engine(path, flavor=flavor)
        return
    text = ".".join(map(str, installed))
    words = f"Expected an engine of TensorRT(-RTX)? {text}.*built with TensorRT(-RTX)? {built}.*--rebuild"
    refused(path, trt, DataError, words, flavor=flavor)


def test_the_other_flavor(engine: Path, trt: FakeTensorRT) -> None:
    refused(engine, trt, DataError, "TensorRT-RTX 1.7.*built with TensorRT 10", flavor=fake_flavor(trt, "rtx", (1, 7)))


GPUS = [
    ("tensorrt", "8.9", {}, "8.9", True),
    ("tensorrt", "8.7", {}, "8.9", False),
    ("tensorrt", "8.6", {"hardware_compatible": "ampere+"}, "8.9", True),
    ("tensorrt", "8.6", {"hardware_compatible": "ampere+"}, "12.0", True),
    ("tensorrt", "8.6", {"hardware_compatible": "ampere+"}, "7.5", False),
    ("tensorrt", "8.6", {"hardware_compatible": "same-compute-capability"}, "8.6", True),
    ("tensorrt", "8.6", {"hardware_compatible": "same-compute-capability"}, "8.9", False),
    ("rtx", "", {}, "8.0", True),
    ("rtx", "", {}, "12.0", True),
    ("rtx", "", {}, "7.5", False),
    ("rtx", "", {"compute_capability": ["7.5", "8.6"]}, "7.5", True),
    ("rtx", "", {"compute_capability": ["7.5", "8.6"]}, "8.9", False),
    ("rtx", "8.6", {"compute_capability": ["current"]}, "8.6", True),
    ("rtx", "8.6", {"compute_capability": ["current"]}, "8.9", False),
]


@pytest.mark.parametrize(("name", "capability", "options", "here", "fits"), GPUS)
def test_gpus(
    tmp_path: Path,
    trt: FakeTensorRT,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    capability: str,
    options: dict[str, Any],
    here: str,
    fits: bool,
) -> None:
    monkeypatch.setattr(module, "find_device", lambda: Device("This GPU", here, "", "13.0"))
    path = tmp_path / "F.engine"
    put_pair(path, PLAN, flavor=name, compute_capability=capability, options=options)
    flavor = fake_flavor(trt, name)
    if fits:
        open_engine(path, flavor=flavor)
    else:
        words = rf"This GPU of compute capability {re.escape(here)}.*was built for.*--rebuild"
        refused(path, trt, DataError, words, flavor=flavor)


def test_no_gpu(engine: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_device", lambda: None)
    refused(engine, trt, SourceUnavailableError, "NVIDIA GPU.*doctor.*predict MODEL.onnx")
    (engine.parent / "model.onnx").touch()
    refused(engine, trt, SourceUnavailableError, f"predict {engine.parent}/model.onnx")
    refused(engine, trt, SourceUnavailableError, "NVIDIA GPU", flavor=None)  # said before "install TensorRT"


def test_the_plugin_must_be_the_one_of_the_build(
    tmp_path: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_loaded", {})
    library, path = tmp_path / "libtrt_blendmask.so", tmp_path / "F.engine"
    monkeypatch.setenv(plugins.VARIABLE, str(library))
    put_pair(path, PLAN, plugin_sha256=hashlib.sha256(b"library").hexdigest())
    refused(path, trt, InputMissingError, "no such file.*make plugin.*--tail native")
    library.write_bytes(b"another library")
    library.chmod(0o644)
    refused(path, trt, DataError, "plugin library that .* was built with.*is another.*--rebuild")
    library.write_bytes(b"library")
    library.chmod(0o666)
    refused(path, trt, NotTrustedError, "only you can write.*chmod go-w")
    library.chmod(0o644)
    for _ in range(2):  # the second engine finds it loaded
        open_engine(path, flavor=fake_flavor(trt))
    assert trt.plugins == [str(library)]


def test_a_plugin_that_tensorrt_cannot_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, path, trt = tmp_path / "lib.so", tmp_path / "F.engine", FakeTensorRT("plugin")
    library.write_bytes(b"library")
    library.chmod(0o644)
    monkeypatch.setenv(plugins.VARIABLE, str(library))
    put_pair(path, PLAN, plugin_sha256=hashlib.sha256(b"library").hexdigest())
    with pytest.raises(DataError, match=r"cannot load it.*make plugin"):
        open_engine(path, flavor=fake_flavor(trt))
    assert trt.deserialized == []


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        ("none", r"cannot be deserialised: Error Code 1: CuTensor .*--rebuild"),
        ("silently", r"cannot be deserialised\. .*--rebuild"),
        ("raises", r"cannot be deserialised: Serialization assertion failed\. "),
        ("runtime", r"cannot be deserialised: pybind11"),
        ("ends", "inputs and outputs that its passport names"),
    ],
)
def test_each_way_in_which_tensorrt_fails(engine: Path, fails: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        open_engine(engine, flavor=fake_flavor(FakeTensorRT(fails)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA initialization failure with error: 35",
        "Target GPU SM 90 is not supported by this TensorRT release.",
        "Error Code 1: Cuda Runtime (out of memory)",
    ],
)
def test_what_is_wrong_with_the_machine_is_no_fault_of_the_engine(engine: Path, said: str) -> None:
    trt = FakeTensorRT("none", said)
    with pytest.raises(SourceUnavailableError, match=rf"{re.escape(said.rstrip('.'))}\. Type: trt-blendmask doctor"):
        open_engine(engine, flavor=fake_flavor(trt), rebuild=True)  # which would not help


def test_no_memory_for_a_context(engine: Path) -> None:
    opened = open_engine(engine, flavor=fake_flavor(FakeTensorRT("context")))
    with pytest.raises(SourceUnavailableError, match=r"Expected 5 MiB .*OutOfMemory"):
        opened.context()


def test_graphs_of_its_own_are_for_rtx(tmp_path: Path, engine: Path, trt: FakeTensorRT) -> None:
    with pytest.raises(UsageError, match="RTX"):
        open_engine(engine, flavor=fake_flavor(trt)).context(own_graphs=True)
    put_pair(tmp_path / "G.engine", PLAN, flavor="rtx", compute_capability="")
    opened = open_engine(tmp_path / "G.engine", flavor=fake_flavor(trt, "rtx"))
    assert opened.context(own_graphs=True).config[0].cuda_graph_strategy == "whole"
