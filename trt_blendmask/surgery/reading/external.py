"""Weights that an exporter wrote into a second file, as PyTorch's newer one does: taken into the model, with care.

A name in a downloaded file is not to be trusted: only a plain file beside the model is read, and of it only what the
tensor's shape accounts for.
"""

from __future__ import annotations

import math
import stat
from pathlib import Path

import onnx

from trt_blendmask.errors import DataError

_ONE_FILE = "Save it in one file: onnx.save(onnx.load(F), G)"
MAX_BYTES = 2**31 - 1  # in all: what one ONNX file can hold


def take_inside(model: onnx.ModelProto, path: Path) -> None:
    """Give the initializers that lie in other files their data.

    Raises:
        DataError: a place that is not a plain file beside `path`, or that has not the bytes that the shape asks for.
    """
    left = MAX_BYTES
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        places = {entry.key: entry.value for entry in tensor.external_data}
        size = _bytes(tensor)
        left -= size
        if left < 0:
            raise DataError(
                f"The weights of '{path}' exceed 2 GiB, which one ONNX file cannot hold. Export it smaller."
            )
        start = _number(places.get("offset", "0"))
        if start < 0 or _number(places.get("length", str(size))) != size:
            raise _refused(tensor, path, f"its {list(tensor.dims)} do not fit the place that is named")
        with _beside(path, places.get("location", ""), tensor).open("rb") as stream:
            stream.seek(start)
            data = stream.read(size)
        if len(data) != size:
            raise _refused(tensor, path, f"'{places['location'][:80]}' is too short: copy it again")
        tensor.raw_data = data
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _beside(path: Path, location: str, tensor: onnx.TensorProto) -> Path:
    if (
        not location
        or "\0" in location
        or "\\" in location
        or location in (".", "..")
        or Path(location).name != location
    ):
        raise _refused(tensor, path, f"it points to {location[:80]!r}, and only files beside the model are read")
    file = path.parent / location
    try:
        mode = file.lstat().st_mode
    except OSError as error:
        raise _refused(tensor, path, f"'{file}' cannot be read: copy it beside the model") from error
    if not stat.S_ISREG(mode):
        raise _refused(tensor, path, f"'{file}' is a link or no file at all")
    return file


def _bytes(tensor: onnx.TensorProto) -> int:
    try:
        item: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        item = 0
    return int(item * math.prod(max(0, side) for side in tensor.dims))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1


def _refused(tensor: onnx.TensorProto, path: Path, reason: str) -> DataError:
    return DataError(
        f"Expected the weights of '{path}' in it or beside it, but of {tensor.name!r:.80} {reason}. {_ONE_FILE}"
    )
