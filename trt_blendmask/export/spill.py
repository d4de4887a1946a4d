"""Keeps large arrays in a temporary file, so that a network's weights are never all in memory."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_blendmask.errors import OutputError

MIN_BYTES = 1 << 16  # each array kept costs a file descriptor


class Spill:
    """A temporary file without a name: it goes when the last array does."""

    def __init__(self) -> None:
        self._file: Any = None

    def keep(self, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The same array, its numbers in the file if they are many; they cost memory only while they are read.

        Raises:
            OutputError: the temporary folder is full or missing.
        """
        if array.nbytes < MIN_BYTES:
            return array
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it closes itself)
            start = self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._file.flush()
            return np.memmap(self._file, array.dtype, "r", start, array.shape)
        except OSError as error:
            folder = tempfile.gettempdir()
            raise OutputError(
                f"Cannot keep the weights in the temporary folder '{folder}': {error.strerror}. Set TMPDIR to another."
            ) from error
