"""An engine that does not fit this machine any more, built again as its passport says it was built."""

from __future__ import annotations

import shlex
from pathlib import Path

from trt_blendmask.engines.options import BuildOptions
from trt_blendmask.engines.passport import (
    matching_passport,
    passport_path,
    read_passport,
    recorded_onnx,
)
from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.files import existing_file, file_sha256
from trt_blendmask.structures import EngineInfo


def rebuild_engine(engine: Path) -> EngineInfo:
    """Build `engine` again from the ONNX that it was built from, with its options, for what is installed now.

    Raises:
        InputMissingError: no passport, or the ONNX is gone.
        DataError: the passport is damaged, or the ONNX has changed since.
        NotTrustedError: others could have written the passport.
        and what `trt_blendmask.engines.operation.build` raises.
    """
    info = _passport(engine)
    onnx = recorded_onnx(info, engine)
    anew = f"Build from another one: trt-blendmask build MODEL.onnx -o {shlex.quote(str(engine))}"
    model = existing_file(onnx, f"the ONNX that '{engine}' was built from", anew)
    try:
        sha256 = file_sha256(model)
    except OSError as error:
        raise InputMissingError(f"Cannot read '{model}': {error.strerror or error}. Check the disk.") from error
    if sha256 != info.onnx_sha256:
        raise DataError(
            f"Expected the ONNX that '{engine}' was built from (sha256 {info.onnx_sha256[:12]}...), but '{onnx}' has "
            f"changed since ({sha256[:12]}...). If that is meant: trt-blendmask build {shlex.quote(str(onnx))} -o "
            f"{shlex.quote(str(engine))}"
        )
    from trt_blendmask.engines.operation import build

    return build(model, engine, BuildOptions.from_recorded(info.options, info.flavor))


def _passport(engine: Path) -> EngineInfo:
    """That of the plan which lies there; where none is, because the plan is damaged, the one in the usual place."""
    if engine.is_file() and (info := matching_passport(engine, file_sha256(engine))):
        return info
    return read_passport(passport_path(engine), private=True)
