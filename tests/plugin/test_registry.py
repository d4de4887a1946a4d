"""The shipped library in TensorRT's own hands: every line here that asks `creator` or `plugin` is a virtual call made
by TensorRT's compiled code. Run by `make test-plugin`, in an environment with TensorRT's lean runtime or TensorRT-RTX;
neither needs a GPU.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

try:
    import tensorrt_lean as trt
    import tensorrt_lean_libs as libraries
except ModuleNotFoundError:
    import tensorrt_rtx as trt
    import tensorrt_rtx_libs as libraries

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "trt_blendmask" / "lib" / "libtrt_blendmask.so"
HARNESS = ROOT / "build" / "plugin" / "harness"
ON_HOST = ROOT / "build" / "plugin" / "on_host.so"  # the same plugin around the same kernel, compiled for the host

# A process has TensorRT's logger once it has made a runtime. The lean one cannot be made without a GPU.
HAS_LOGGER = trt.__name__ == "tensorrt_rtx"
KEPT: list[Any] = []

Field = trt.PluginField
Type = trt.PluginFieldType
Phase = trt.TensorRTPhase
Capability = trt.PluginCapabilityType

FIELDS = {
    "mask_size": Type.INT32,
    "attention_size": Type.INT32,
    "spatial_scale": Type.FLOAT32,
    "sampling_ratio": Type.INT32,
    "aligned": Type.INT32,
    "attention_interpolation": Type.CHAR,
    "activation": Type.CHAR,
    "mask_dtype": Type.CHAR,
}
DEFAULTS = {
    "mask_size": 56,
    "attention_size": 14,
    "spatial_scale": 0.25,
    "sampling_ratio": 1,
    "aligned": 1,
    "attention_interpolation": "bilinear",
    "activation": "sigmoid",
    "mask_dtype": "float32",
}


def field(name: str, value: int | float | str) -> Any:
    """A field of the type that its value has in Python."""
    if isinstance(value, str):
        return Field(name, value.encode(), Type.CHAR)
    if isinstance(value, int):
        return Field(name, np.array([value], np.int32), Type.INT32)
    return Field(name, np.array([value], np.float32), Type.FLOAT32)


@pytest.fixture(scope="module")
def creator() -> Any:
    if HAS_LOGGER:
        KEPT.append(trt.Runtime(trt.Logger(trt.Logger.WARNING)))
    registry = trt.get_plugin_registry()
    registry.load_library(str(LIBRARY))
    return registry.get_creator("RoiAlignBlend", "1", "trt_blendmask")


def create(creator: Any, fields: Sequence[Any], phase: Any = Phase.BUILD) -> Any:
    return creator.create_plugin("layer", trt.PluginFieldCollection(list(fields)), phase)


def metadata(plugin: Any) -> dict[str, str]:
    text = plugin.get_capability_interface(Capability.BUILD).metadata_string
    return dict(word.split("=") for word in text.split())


def test_registry_knows_the_creator(creator: Any) -> None:
    assert (creator.name, creator.plugin_version, creator.plugin_namespace) == ("RoiAlignBlend", "1", "trt_blendmask")
    names = [(c.name, c.plugin_namespace) for c in trt.get_plugin_registry().all_creators]
    assert names.count(("RoiAlignBlend", "trt_blendmask")) == 1


def test_fields(creator: Any) -> None:
    assert {f.name: f.type for f in creator.field_names} == FIELDS


def test_silent_node_has_defaults(creator: Any) -> None:
    assert metadata(create(creator, [])) == {name: str(value) for name, value in DEFAULTS.items()}


@pytest.mark.parametrize("phase", [Phase.BUILD, Phase.RUNTIME])
def test_every_combination_of_fields(creator: Any, phase: Any) -> None:
    choices: dict[str, tuple[Any, ...]] = {
        "mask_size": (14, 56),
        "attention_size": (7, 14),
        "spatial_scale": (0.25, 0.125),
        "sampling_ratio": (1, 2),
        "aligned": (0, 1),
        "attention_interpolation": ("bilinear", "nearest"),
        "activation": ("sigmoid", "none"),
        "mask_dtype": ("float32", "float16", "uint8"),
    }
    for values in itertools.product(*choices.values()):
        given = dict(zip(choices, values, strict=True))
        plugin = create(creator, [field(name, value) for name, value in given.items()], phase)
        assert metadata(plugin) == {name: str(value) for name, value in given.items()}


@pytest.mark.parametrize("left_out", FIELDS)
def test_field_left_out(creator: Any, left_out: str) -> None:
    given = {**DEFAULTS, "mask_size": 28, "activation": "none"}
    plugin = create(creator, [field(name, value) for name, value in given.items() if name != left_out])
    assert metadata(plugin) == {name: str(value) for name, value in {**given, left_out: DEFAULTS[left_out]}.items()}


def test_string_as_the_onnx_parser_gives_it(creator: Any) -> None:
    """With a terminating zero, which Python leaves out."""
    assert metadata(create(creator, [field("activation", "none\0")]))["activation"] == "none"


WRONG = [
    ([field("mask_size", 0)], "mask_size is 0, expected 1 to"),
    ([field("mask_size", -3)], "mask_size is -3, expected 1 to"),
    ([field("mask_size", 56.0)], "field mask_size is a float32, expected an int32"),
    ([field("mask_size", "56")], "field mask_size is a string, expected an int32"),
    ([Field("mask_size", np.array([56], np.int64), Type.INT64)], "field mask_size is an int64, expected an int32"),
    (
        [Field("mask_size", np.array([56, 56], np.int32), Type.INT32)],
        "field mask_size is 2 values long, expected an int32",
    ),
    ([field("attention_size", 0)], "attention_size is 0, expected 1 to"),
    ([field("sampling_ratio", 0)], "sampling_ratio is 0, expected 1 to 2"),
    ([field("sampling_ratio", 3)], "sampling_ratio is 3, expected 1 to 2"),
    ([field("spatial_scale", 1)], "field spatial_scale is an int32, expected a float32"),
    ([field("spatial_scale", 0.0)], "spatial_scale is 0, expected a positive number"),
    ([field("spatial_scale", float("nan"))], "spatial_scale is nan, expected a positive number"),
    ([field("aligned", 2)], "field aligned is 2, expected 0 or 1"),
    ([field("attention_interpolation", "cubic")], 'is "cubic", expected "bilinear" or "nearest"'),
    ([field("activation", "softmax")], 'is "softmax", expected "sigmoid" or "none"'),
    ([field("activation", 1)], "field activation is an int32, expected a string"),
    ([field("mask_dtype", "float64")], 'is "float64", expected "float32" or "float16" or "uint8"'),
    ([field("mask_size", 28), field("mask_size", 28)], "field mask_size is given twice, expected once"),
    ([field("masksize", 28)], "field masksize is unknown"),
]


@pytest.mark.parametrize(("fields", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
@pytest.mark.parametrize("phase", [Phase.BUILD, Phase.RUNTIME])
def test_wrong_field_is_refused_and_logged(
    creator: Any, capfd: pytest.CaptureFixture[str], fields: list[Any], sentence: str, phase: Any
) -> None:
    assert create(creator, fields, phase) is None
    said = "".join(capfd.readouterr())
    assert 'trt_blendmask: RoiAlignBlend: layer "layer" is not made: ' in said
    assert sentence in said
    assert ("[TRT] [E]" in said) == HAS_LOGGER  # else on standard error


def test_uint8_is_warned_of_when_building(creator: Any, capfd: pytest.CaptureFixture[str]) -> None:
    for phase, warned in ((Phase.BUILD, True), (Phase.RUNTIME, False)):
        assert create(creator, [field("mask_dtype", "uint8")], phase) is not None
        said = capfd.readouterr()
        assert ("rules out uint8" in said.out + said.err) == warned


def test_capability_interfaces(creator: Any) -> None:
    plugin = create(creator, [field("mask_size", 28)])
    core, build, runtime = (
        plugin.get_capability_interface(which) for which in (Capability.CORE, Capability.BUILD, Capability.RUNTIME)
    )
    assert (core.plugin_name, core.plugin_version, core.plugin_namespace) == ("RoiAlignBlend", "1", "trt_blendmask")
    assert build.num_outputs == 1
    assert build.format_combination_limit == 100
    assert build.timing_cache_id == f"RoiAlignBlend 1 {build.metadata_string}"  # at the end of the build's table
    assert build.metadata_string.startswith("mask_size=28 attention_size=14 ")
    versions = [(v.interface_info.kind, v.interface_info.major, v.interface_info.minor) for v in (creator, plugin)]
    versions += [
        (v.interface_info.kind, v.interface_info.major, v.interface_info.minor) for v in (core, build, runtime)
    ]
    assert versions == [
        ("PLUGIN CREATOR_V3ONE", 1, 0),
        ("PLUGIN", 1, 0),
        ("PLUGIN_V3ONE_CORE", 1, 0),
        ("PLUGIN_V3ONE_BUILD", 1, 0),
        ("PLUGIN_V3ONE_RUNTIME", 1, 0),
    ]


def test_timing_cache_tells_plugins_apart(creator: Any) -> None:
    """A timing of one configuration must not be taken for another's."""
    others: dict[str, Any] = {
        "mask_size": 28,
        "attention_size": 7,
        "spatial_scale": 0.125,
        "sampling_ratio": 2,
        "aligned": 0,
        "attention_interpolation": "nearest",
        "activation": "none",
        "mask_dtype": "float16",
    }
    plugins = [create(creator, []), *(create(creator, [field(name, value)]) for name, value in others.items())]
    ids = {plugin.get_capability_interface(Capability.BUILD).timing_cache_id for plugin in plugins}
    assert len(ids) == 1 + len(FIELDS)


@pytest.mark.parametrize(("version", "asked"), [(8601, False), (100300, True)])
def test_older_registries_are_left_alone(tmp_path: Path, version: int, asked: bool) -> None:
    """Opened beside a TensorRT 8, whose registry has other functions, the library does not register by itself."""
    source = f'extern "C" int getInferLibVersion() {{ return {version}; }}\n'
    source += '#include <stdlib.h>\nextern "C" void* getPluginRegistry() { _Exit(9); }\n'
    (tmp_path / "pretend.cpp").write_text(source)
    pretend = tmp_path / "libnvinfer.so.8"
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, "-shared", "-fPIC", str(tmp_path / "pretend.cpp"), "-o", str(pretend)], check=True)
    script = f"import ctypes; kept = ctypes.CDLL({str(pretend)!r}), ctypes.CDLL({str(LIBRARY)!r})"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == (9 if asked else 0)


@pytest.mark.parametrize(("library", "options"), [(LIBRARY, []), (ON_HOST, ["--kernel-on-host"])])
def test_harness_walks_every_function(library: Path, options: list[str]) -> None:
    """plugins/tests/harness.cpp: what Python cannot call on a C++ plugin, enqueue included."""
    folder = Path(libraries.__file__).parent
    tensorrt = next(path for name in ("libnvinfer_lean.so.*", "libtensorrt_rtx.so.*") for path in folder.glob(name))
    command = [str(HARNESS), str(tensorrt), str(library), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.endswith(" checks, 0 failed\n")
