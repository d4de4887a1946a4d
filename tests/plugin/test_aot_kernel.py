"""The ahead-of-time tail's kernel without a GPU: its launch is the plugin's own, its entry blends on the pretended
device as the host twin does, and NVRTC makes PTX of it for every GPU it knows.
"""

from __future__ import annotations

import ctypes
import enum
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugin.aot_cases import blend_params
from tests.plugin.cases import random_case
from tests.plugin.test_kernel import ROUNDING, difference, steps
from tests.plugin.twins import TYPES, Case, Geometry, Params, Twin, build
from trt_blendmask.aot import compile as nvrtc
from trt_blendmask.aot.compile import Target, compile_ptx, device_target, known_archs
from trt_blendmask.aot.launch import Launch, plan
from trt_blendmask.aot.params import BlendParams
from trt_blendmask.aot.source import ENTRY, kernel_source
from trt_blendmask.errors import DataError, SourceUnavailableError, TrtBlendMaskError

BLENDMASK = BlendParams(
    *(4, 144, 144, 56, 14, 0.25, 1, True, "bilinear", "sigmoid"), *(1, 100, "float16", "float16", "float16")
)


# ---------------------------------------------------------------------------------------------------------------------
# The launch


def in_cpp(p: BlendParams) -> Params:
    nearest, none = p.attention_interpolation == "nearest", p.activation == "none"
    sizes = (p.num_bases, p.bases_h, p.bases_w, p.mask_size, p.attention_size, p.spatial_scale, p.sampling_ratio)
    types = [[np.dtype(t).name for t in TYPES].index(t) for t in (p.bases_type, p.attention_type, p.masks_type)]
    channels = p.pixel_channels or p.num_bases
    geometry = Geometry(*sizes, p.aligned, int(nearest), int(none))
    return Params(geometry, p.batch, p.detections, types[0], int(p.pixel_channels > 0), channels, *types[1:])


def planned_in_cpp(twin: Twin, p: BlendParams) -> tuple[list[int], str]:
    """Grid, block and shared memory of the launcher in C++, and the kernel's mangled name."""
    launch = np.zeros(7, np.int32)
    planned = twin.library.planned
    planned.restype = ctypes.c_char_p
    name = planned(ctypes.byref(in_cpp(p)), launch.ctypes.data_as(ctypes.c_void_p))
    return launch.tolist(), name.decode()


@st.composite
def parameters(draw: st.DrawFn) -> BlendParams:
    number, types = draw, st.sampled_from(["float32", "float16"])
    k = number(st.integers(1, 20))
    return BlendParams(
        num_bases=k,
        bases_h=number(st.integers(1, 400)),
        bases_w=number(st.integers(1, 400)),
        mask_size=number(st.integers(1, 256) | st.sampled_from([14, 28, 56, 112])),
        attention_size=number(st.integers(1, 256) | st.sampled_from([7, 14, 28])),
        spatial_scale=0.25,
        sampling_ratio=number(st.integers(1, 2)),
        aligned=number(st.booleans()),
        attention_interpolation=number(st.sampled_from(["bilinear", "nearest"])),
        activation="sigmoid",
        batch=number(st.integers(1, 8)),
        detections=number(st.integers(1, 1000)),
        bases_type=number(types),
        attention_type=number(types),
        masks_type=number(types),
        pixel_channels=number(st.sampled_from([0, k, k + 1, -(-k // 8) * 8])),
    )


@settings(max_examples=300, deadline=None)
@given(p=parameters(), multiprocessors=st.integers(1, 200))
def test_launch_is_the_plugins(pretend: Twin, p: BlendParams, multiprocessors: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEND_MULTIPROCESSORS", str(multiprocessors))
        sizes, name = planned_in_cpp(pretend, p)
    got = plan(p, multiprocessors)
    assert [*got.grid, *got.block, got.shared_bytes] == sizes
    element = "f" if p.bases_type == "float32" else "6__half"
    assert f"roi_align_blend_kernelI{element}Li{got.register_bases}ELb{int(got.packed)}E" in name


@pytest.mark.parametrize("multiprocessors", [1, 30, 10**5])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("r", [6, 14, 28, 56, 61])
def test_launch_for_every_attention(pretend: Twin, r: int, interpolation: str, multiprocessors: int) -> None:
    """Sizes at which float32 decides a row, and at which shared memory is full, are among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEND_MULTIPROCESSORS", str(multiprocessors))
        for m in range(1, 257):
            p = replace(BLENDMASK, mask_size=r, attention_size=m, attention_interpolation=interpolation)
            got = plan(p, multiprocessors)
            assert [*got.grid, *got.block, got.shared_bytes] == planned_in_cpp(pretend, p)[0]


LIMITS = {
    "num_bases": (1, 1024),
    "bases_h": (1, 32768),
    "bases_w": (1, 32768),
    "mask_size": (1, 256),
    "attention_size": (1, 256),
    "sampling_ratio": (1, 2),
    "batch": (1, 65535),
    "detections": (1, 65535),
    "pixel_channels": (4, 32768),
}


@pytest.mark.parametrize("name", LIMITS)
def test_refuses_what_the_plugin_refuses(pretend: Twin, name: str) -> None:
    for value in (LIMITS[name][0] - 1, LIMITS[name][0], LIMITS[name][1], LIMITS[name][1] + 1):
        changed = SimpleNamespace(**{**vars(BLENDMASK), "bases_h": 4, "bases_w": 4, name: value})
        refused = pretend.refusal(in_cpp(changed)) is not None  # type: ignore[arg-type]
        try:
            BlendParams(**vars(changed))
        except DataError:
            assert refused
        else:
            assert not refused


# ---------------------------------------------------------------------------------------------------------------------
# The entry, on the pretended device


def entry_twin(case: Case, launch: Launch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Twin:
    """The entry, compiled by g++ and launched as `launch` says."""
    (folder / "aot.cu").write_text(kernel_source(blend_params(case), launch))
    monkeypatch.setenv("AOT_LAUNCH", ",".join(map(str, (*launch.grid, *launch.block, launch.shared_bytes))))
    return Twin(build("pretend_aot", folder) / "libpretend_aot.so")


CASES: list[tuple[int, dict[str, Any]]] = [
    (16, {"m": 14, "r": 56, "bases_type": np.float16, "attention_type": np.float16, "masks_type": np.float16}),
    (0, {"m": 7, "r": 28, "n": 2, "channels": 8, "sampling_ratio": 2, "aligned": False, "spatial_scale": 0.3}),
    (10**6, {"k": 12, "m": 5, "r": 13, "nearest": True, "sigmoid": False, "attention_type": np.float16}),
]


@pytest.mark.parametrize(("multiprocessors", "options"), CASES)
def test_entry_blends_as_the_host_does(
    host: Twin, multiprocessors: int, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written beside the masks, no more shared memory is used than was asked for, empty slots are 0."""
    case = random_case(3, d=5, **options)
    launch = plan(blend_params(case), multiprocessors)
    got, wanted = entry_twin(case, launch, tmp_path, monkeypatch)(case), host(case)
    if case.masks_type is np.float16:
        assert steps(got, wanted) <= 1
    else:
        assert difference(got, wanted) <= ROUNDING * (1 if case.sigmoid else 10)


# ---------------------------------------------------------------------------------------------------------------------
# PTX


def ptx_of(arch: int, p: BlendParams = BLENDMASK) -> str:
    return compile_ptx(kernel_source(p, plan(p, 16)), arch).decode()


@pytest.mark.parametrize("arch", [75, 80, 86, 87, 89, 90, 100, 110, 120])
def test_ptx_for_every_gpu(arch: int) -> None:
    """TensorRT gives five pointers: the inputs, no scalars, the output."""
    ptx = ptx_of(arch)
    assert f".target sm_{max(a for a in known_archs() if a <= arch)}\n" in ptx
    (name, arguments) = re.findall(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.DOTALL)[0]
    assert name == ENTRY
    assert re.findall(r"\.param \.([ub]64)\b", arguments) in (["u64"] * 5, ["b64"] * 5)
    assert arguments.count(".param") == 5
    assert ptx.count(".entry") == 1
    assert re.search(r"\.maxntid\s+256\b", ptx)
    assert ".local" not in ptx
    assert not re.search(r"\.(func|callprototype)\b|\bcall\b", ptx), "one kernel, which calls nothing"


@pytest.mark.parametrize("types", [("float32", "float16", "float32"), ("float16", "float32", "float16")])
@pytest.mark.parametrize("k", [1, 3, 8, 9])
def test_ptx_for_every_kind(k: int, types: tuple[str, str, str]) -> None:
    for channels in (0, k, -(-k // 8) * 8):
        p = BlendParams(k, 50, 60, 28, 7, 0.25, 2, False, "nearest", "none", 2, 100, *types, channels)
        assert ENTRY in ptx_of(75, p)


def test_newer_gpus_take_the_newest_known_ptx() -> None:
    assert f".target sm_{known_archs()[-1]}\n" in ptx_of(990)


def test_older_gpus_are_refused() -> None:
    with pytest.raises(SourceUnavailableError, match=r"compute capability \d+\.\d or newer.*got 3\.5"):
        ptx_of(35)


def test_compiler_errors_are_told() -> None:
    with pytest.raises(TrtBlendMaskError, match=r"does not compile(.|\n)*nowhere"):
        compile_ptx("int i = nowhere;", 87)


def test_without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise RuntimeError("libnvrtc.so was not found")

    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", SimpleNamespace(nvrtcVersion=missing))
    with pytest.raises(SourceUnavailableError, match=r"Expected NVRTC.*pip install"):
        ptx_of(87)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    with pytest.raises(SourceUnavailableError, match=r"Expected cuda-bindings.*pip install"):
        ptx_of(87)


class Runtime:
    """cuda.bindings.runtime of a machine with an Orin or none, and some driver."""

    cudaDeviceAttr = SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=7, cudaDevAttrMultiProcessorCount=16
    )

    def __init__(self, error: int, driver: int) -> None:
        self.error, self.driver = error, driver

    def cudaGetDevice(self) -> tuple[Any, int]:  # noqa: N802
        return cuda_error(self.error), 0

    def cudaDeviceGetAttribute(self, attribute: int, _: int) -> tuple[Any, int]:  # noqa: N802
        return cuda_error(0), attribute

    def cudaDriverGetVersion(self) -> tuple[Any, int]:  # noqa: N802
        return cuda_error(0), self.driver


def cuda_error(code: int) -> Any:
    return enum.IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorNoDevice": 100})(code)


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Runtime(0, 99000))
    assert device_target() == Target(arch=87, multiprocessors=16)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Runtime(0, 12020))
    with pytest.raises(SourceUnavailableError, match=r"no newer than the driver's CUDA 12\.2, got 1\d\.\d"):
        device_target()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Runtime(100, 99000))
    with pytest.raises(SourceUnavailableError, match=r"Expected a CUDA GPU.*cudaErrorNoDevice"):
        device_target()


def test_headers_are_the_plugins() -> None:
    """The wheel carries copies; here they are links."""
    plugins = Path(__file__).resolve().parent.parent.parent / "plugins"
    for header in ("math.h", "kernel.h", "kernel.cuh"):
        name = f"roi_align_blend_{header}"
        assert (nvrtc.DEVICE / name).resolve() == plugins / name
