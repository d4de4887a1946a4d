"""What is in a file: any artefact of this package, told from its bytes, and nothing in it executed."""

from __future__ import annotations

from pathlib import Path

from trt_blendmask.errors import DataError
from trt_blendmask.export.reader import looks_like_checkpoint
from trt_blendmask.export.sniff import ENGINES, ONNX, TEXT, UNKNOWN, describe
from trt_blendmask.files import existing_file
from trt_blendmask.inspect.checkpoint import inspect_checkpoint
from trt_blendmask.inspect.engine import inspect_engine, may_be_plan
from trt_blendmask.inspect.findings import Findings
from trt_blendmask.inspect.texts import inspect_text

_WHAT = "an ONNX model, an engine, its passport, a calibration table or a checkpoint"
_HINT = "Name such a file."
_HEAD = 512


def inspect(path: Path) -> Findings:
    """Tell what the file `path` is.

    Raises:
        InputMissingError: no such file.
        DataError: of no kind that this package knows, cut short or inconsistent.
        NotTrustedError: a checkpoint whose pickle asks for more than tensors.
    """
    file = existing_file(path, _WHAT, _HINT)
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    looks = describe(head)
    if looks in ENGINES or (looks == UNKNOWN and may_be_plan(file)):
        return inspect_engine(file, looks)
    if looks_like_checkpoint(head):
        return inspect_checkpoint(file, head)
    if looks == TEXT:
        return inspect_text(file)
    if looks == ONNX or (looks == UNKNOWN and file.suffix == ".onnx"):
        from trt_blendmask.inspect.onnx_file import inspect_onnx

        return inspect_onnx(file)
    raise DataError(f"Expected {_WHAT}, but '{file}' looks like {looks}. {_HINT}")
