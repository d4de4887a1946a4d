"""Writes an ONNX file straight from the arrays of its weights, which protobuf would copy three times over.

A message of protobuf is a row of fields: a tag, a length, the bytes. The model without its weights is small and made
by protobuf itself; the weights are put behind the graph's other fields, one after the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from trt_blendmask.errors import DataError
from trt_blendmask.files import atomic_output

MAX_BYTES = 2**31 - 1  # of any message: protobuf's own limit


def write_model(model: onnx.ModelProto, weights: dict[str, npt.NDArray[np.generic]], output: Path) -> int:
    """Write the model with `weights`, which are used up, as its initializers; the same bytes for the same arguments.

    Returns:
        The size of the file in bytes.

    Raises:
        OutputError: cannot be written. DataError: larger than 2 GiB.
    """
    graph = model.graph.SerializeToString(deterministic=True)
    starts = {name: _start(name, array) for name, array in weights.items()}
    length = len(graph) + sum(len(starts[name]) + array.nbytes for name, array in weights.items())
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    head = shell.SerializeToString(deterministic=True) + _tag(onnx.ModelProto.GRAPH_FIELD_NUMBER, length)
    if len(head) + length > MAX_BYTES:
        raise DataError("The model has more than 2 GiB of weights, which one ONNX file cannot hold.")
    with atomic_output(output) as temporary, temporary.open("wb") as stream:
        stream.write(head + graph)
        for name in starts:
            array = weights.pop(name)  # what was read of a spilt array leaves memory with it
            stream.write(starts[name])
            stream.write(_little_endian(array).reshape(-1).view(np.uint8).data)
    return len(head) + length


def _start(name: str, array: npt.NDArray[np.generic]) -> bytes:
    """One initializer up to where its numbers begin."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    head: bytes = onnx.TensorProto(name=name, dims=array.shape, data_type=kind).SerializeToString(deterministic=True)
    head += _tag(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, array.nbytes)
    return _tag(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(head) + array.nbytes) + head


def _tag(field: int, length: int) -> bytes:
    """The opening of a field that has a length (wire type 2)."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _little_endian(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
