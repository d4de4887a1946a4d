"""PTX by NVRTC, CUDA's compiler as a library: no nvcc, no CUDA headers and, where the GPU is named, no GPU."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.errors import SourceUnavailableError, TrtBlendMaskError

DEVICE = Path(__file__).resolve().parent / "device"  # the plugin's own headers
OPTIONS = ("-std=c++17", "--device-as-default-execution-space")
INSTALL = "pip install 'trt-blendmask[aot]'"


@dataclass(frozen=True)
class Target:
    """A GPU to compile for.

    Attributes:
        arch: compute capability, 87 for 8.7. multiprocessors: how many it has.
    """

    arch: int
    multiprocessors: int


def device_target() -> Target:
    """The GPU that CUDA uses in this thread.

    Raises:
        SourceUnavailableError: no CUDA bindings, no GPU, or a driver older than NVRTC, whose PTX it would not read.
    """
    runtime = _bindings("runtime")
    error, device = runtime.cudaGetDevice()
    if error != 0:
        raise SourceUnavailableError(
            f"Expected a CUDA GPU to compile the AOT tail for, got {error.name}: run nvidia-smi."
        )
    attributes = runtime.cudaDeviceAttr
    major, minor, multiprocessors = (
        _checked(runtime.cudaDeviceGetAttribute(attribute, device))
        for attribute in (
            attributes.cudaDevAttrComputeCapabilityMajor,
            attributes.cudaDevAttrComputeCapabilityMinor,
            attributes.cudaDevAttrMultiProcessorCount,
        )
    )
    release = _checked(runtime.cudaDriverGetVersion())
    driver, compiler = (release // 1000, release % 1000 // 10), nvrtc_version()
    if driver < compiler:
        raise SourceUnavailableError(
            f"Expected an NVRTC that is no newer than the driver's CUDA {driver[0]}.{driver[1]}, "
            f"got {compiler[0]}.{compiler[1]}: install cuda-bindings and NVRTC of that release."
        )
    return Target(10 * major + minor, multiprocessors)


def nvrtc_version() -> tuple[int, int]:
    """Major and minor of the CUDA release that NVRTC is of."""
    error, major, minor = _nvrtc().nvrtcVersion()
    _checked((error,))
    return int(major), int(minor)


def known_archs() -> list[int]:
    """Compute capabilities that NVRTC compiles for, ascending."""
    return sorted(_checked(_nvrtc().nvrtcGetSupportedArchs()))


def compile_ptx(source: str, arch: int) -> bytes:
    """PTX for compute capability `arch`, or for the newest before it that NVRTC knows: PTX runs on what comes after.

    Raises:
        SourceUnavailableError: no NVRTC, or one that only knows newer GPUs.
    """
    known = [a for a in known_archs() if a <= arch]
    if not known:
        raise SourceUnavailableError(
            f"Expected a GPU of compute capability {known_archs()[0] / 10} or newer, which is what this NVRTC compiles "
            f"for, got {arch / 10}: install the NVRTC of an older CUDA release, or pass --tail native."
        )
    nvrtc = _nvrtc()
    headers = {path.name.encode(): path.read_bytes() for path in sorted(DEVICE.iterdir())}
    options = [option.encode() for option in (*OPTIONS, f"-arch=compute_{known[-1]}")]
    program = _checked(
        nvrtc.nvrtcCreateProgram(source.encode(), b"aot.cu", len(headers), list(headers.values()), list(headers))
    )
    try:
        (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if error != 0:
            log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise TrtBlendMaskError(f"NVRTC does not compile the AOT kernel: {log.rstrip(bytes(1)).decode().strip()}")
        ptx = bytearray(_checked(nvrtc.nvrtcGetPTXSize(program)))
        _checked(nvrtc.nvrtcGetPTX(program, ptx))
        return bytes(ptx.rstrip(b"\0"))
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _nvrtc() -> Any:
    nvrtc = _bindings("nvrtc")
    try:  # the library itself is opened by the first call
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        raise SourceUnavailableError(f"Expected NVRTC, which compiles the AOT tail, got none: {INSTALL}.") from error
    return nvrtc


def _bindings(module: str) -> Any:
    try:
        return importlib.import_module(f"cuda.bindings.{module}")
    except ImportError as error:
        raise SourceUnavailableError(f"Expected cuda-bindings, got none: {INSTALL}.") from error


def _checked(results: Any) -> Any:
    """What a call of the CUDA bindings gives besides its error code."""
    error, *values = results
    if error != 0:
        raise SourceUnavailableError(f"Expected an answer from CUDA, got {error.name}: run nvidia-smi.")
    return values[0] if values else None
