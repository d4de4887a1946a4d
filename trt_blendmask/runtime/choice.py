"""What runs a model: chosen by its file and by the machine."""

from __future__ import annotations

import os
import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from trt_blendmask.backends import Session
from trt_blendmask.backends.onnxruntime import OnnxRuntimeSession
from trt_blendmask.engines.checks import no_device, read_plan
from trt_blendmask.engines.device import find_device
from trt_blendmask.engines.passport import passport_path, recorded_onnx
from trt_blendmask.errors import UsageError
from trt_blendmask.files import existing_file, file_sha256

DEVICES = ("auto", "cpu", "gpu")
_SUFFIXES = (".engine", ".plan", ".trt")
_MAGIC = b"trt"  # from the second byte of a plan on


@dataclass(frozen=True)
class GpuOptions:
    """How an engine is opened; nothing to an ONNX model.

    Attributes:
        cuda: "core" (NVIDIA's cuda.core) or "pycuda", in whose current context the engine then runs.
        trust: sha256 of an engine without a passport that is to be opened all the same.
        rebuild: build an engine that does not fit this machine again, from the ONNX file that it was built from.
    """

    cuda: str = "core"
    trust: str = ""
    rebuild: bool = False


def open_session(
    path: str | os.PathLike[str], device: str, threads: int, gpu: GpuOptions | None
) -> tuple[Session, str]:
    """The session for `path` and why it is that one; see `trt_blendmask.load`."""
    if device not in DEVICES:
        raise UsageError(f"Expected the device to be {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, got '{device:.80}'.")
    file, has_gpu, gpu = Path(path), find_device() is not None, gpu or GpuOptions()
    if not is_engine(file):
        if device == "gpu":
            existing_file(file, "an engine", "Type: trt-blendmask build --help")
            raise UsageError(
                f"Expected an engine for the GPU, but '{file}' is an ONNX model, which runs on the CPU. Type: "
                f"{_build(file)}"
            )
        why = f"'{file}' is an ONNX model"
        return OnnxRuntimeSession(file, threads), f"{why}; for the GPU: {_build(file)}" if has_gpu else why
    if device == "gpu" or (device == "auto" and has_gpu):
        from trt_blendmask.backends.tensorrt import open_session as open_engine_session

        return open_engine_session(file, gpu.cuda, gpu.trust, gpu.rebuild), f"'{file}' is an engine"
    onnx = _built_from(file, device, gpu.trust)
    reason = "as --device cpu asks for" if device == "cpu" else "as there is no GPU"
    return OnnxRuntimeSession(onnx, threads), f"'{onnx}', which '{file}' was built from, {reason}"


def is_engine(file: Path) -> bool:
    """By its name or its first bytes."""
    if file.suffix.lower() in _SUFFIXES:
        return True
    try:
        with file.open("rb") if file.is_file() else nullcontext() as stream:  # to open a pipe would wait for its writer
            return stream is not None and stream.read(4)[1:] == _MAGIC
    except (OSError, ValueError):  # who opens it says what is wrong with it
        return False


def model_files(path: str | os.PathLike[str]) -> list[Path]:
    """What no output may overwrite: the model, and an engine's passport."""
    file = Path(path)
    return [file, passport_path(file)] if is_engine(file) else [file]


def _built_from(engine: Path, device: str, trust: str) -> Path:
    """The ONNX file that `engine` was built from, unchanged since and in operators that the CPU has.

    Raises:
        as `read_plan`.
        UsageError, SourceUnavailableError: it is not there, for "cpu" and "auto".
    """
    plan = read_plan(engine, trust)
    if plan.info is not None and plan.info.spec.tail == "native":
        onnx = recorded_onnx(plan.info, plan.path)
        if onnx.is_file() and file_sha256(onnx) == plan.info.onnx_sha256:
            return onnx
    if device == "auto":
        raise no_device(plan.path, plan.info)
    raise UsageError(
        f"Expected an ONNX model for the CPU, but '{engine}' is an engine, and the ONNX that it was built from is gone "
        "or has changed or holds a plugin. Give the ONNX that 'trt-blendmask surgery --tail native' writes."
    )


def _build(onnx: Path) -> str:
    return f"trt-blendmask build {shlex.quote(str(onnx))} -o {shlex.quote(str(onnx.with_suffix('.engine')))}"
