"""Tables in files: ours, which names its model, and the text form that TensorRT up to version 10 reads."""

from __future__ import annotations

import hashlib
import shlex
import struct
from pathlib import Path

import onnx

from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.files import atomic_output, existing_file
from trt_blendmask.structures import CalibrationTable

TENSORRT = "10.3.0"  # of JetPack 6.1 and 6.2


def graph_sha256(model: onnx.ModelProto) -> str:
    """Hash of what a model computes: of its serialised form without metadata and the names of what wrote it."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for field in ("metadata_props", "producer_name", "producer_version"):
        bare.ClearField(field)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def read_table(path: Path, model_sha256: str) -> CalibrationTable:
    """The table in the file `path`, which must have been made for the model with the hash `model_sha256`.

    Raises:
        InputMissingError: no such file.
        DataError: no table, or that of another model.
    """
    hint = "Make it: trt-blendmask calibrate MODEL --images DIR -o table.json"
    file = existing_file(path, "a calibration table", hint)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected a calibration table, but '{file}' is no text. {hint}") from error
    try:
        table = CalibrationTable.from_json(text)
    except DataError as error:
        raise DataError(f"'{file}': {error}") from error
    if table.model_sha256 != model_sha256:
        raise DataError(
            f"Expected the table of this model (sha256 {model_sha256[:12]}...), but '{file}' is that of another "
            f"({table.model_sha256[:12]}...): calibrate this one. Type: trt-blendmask calibrate MODEL --images DIR "
            f"-o {shlex.quote(f'{file.stem}-2.json')}"
        )
    return table


def write_table(table: CalibrationTable, path: Path) -> None:
    """Write `table` as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_output(path) as temporary:
        temporary.write_text(table.to_json(), encoding="utf-8")


def cache_text(table: CalibrationTable, header: str) -> str:
    """TensorRT's calibration cache, for `trtexec --int8 --calib=F` and DeepStream's `int8-calib-file`.

    After `header` a line `tensor: scale` each; the scale, a 127th of the threshold, is a float32 as eight hex digits,
    highest byte first.
    """
    lines = [header, *(f"{name}: {struct.pack('>f', value / 127).hex()}" for name, value in table.ranges.items())]
    return "\n".join(lines) + "\n"


def cache_header(tensorrt: str) -> str:
    """The first line of a cache for the version `tensorrt`: "TRT-100300-EntropyCalibration2" for 10.3.0, which other
    versions ignore. The name is that of the calibrator that trtexec and DeepStream read caches with, whatever the
    method; TensorRT 11 has none any more.

    Raises:
        UsageError: `tensorrt` is not like "10.3.0", or above 10.
    """
    parts = tensorrt.split(".")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and len(part) < 3 for part in parts):
        raise UsageError(f"Expected a version of TensorRT such as {TENSORRT}, got '{tensorrt}'.")
    major, minor, patch = [int(part) for part in parts] + [0] * (3 - len(parts))
    if not 8 <= major <= 10:
        raise UsageError(f"Expected TensorRT 8 to 10, got {tensorrt}: later ones read INT8 from the ONNX file only.")
    number = f"{major}{minor:02}{patch:02}" if major >= 10 else f"{major}{minor}{patch:02}"
    return f"TRT-{number}-EntropyCalibration2"
