"""What runs a deployable model: one module per inference library, each with a `Session`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from trt_blendmask.structures import TensorSpec

Array = npt.NDArray[Any]


class Session(Protocol):
    """One loaded network, for one thread at a time; `twin` is for the next thread.

    Attributes:
        path: the file that was loaded.
        inputs, outputs: name, dtype and shape of the network's ends; a dimension that is not fixed reads -1.
        metadata: JSON of the ModelSpec, or "" where the file has none.
        how: what runs the network and why, in words.
        abreast: of how many sessions (this one and its twins) at a time the machine makes use.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: str
    how: str
    abreast: int

    def input_buffer(self) -> Array:
        """Memory of the first input's shape and dtype from which `run` starts soonest."""

    def run(self, images: Array) -> dict[str, Array]:
        """Feed the first input; return the outputs by name, valid until the next call and while the session is open.

        The slots of `masks` from `count` on, which are empty, may be left out.

        Raises:
            DataError: another shape or dtype, or the session was closed.
        """

    def twin(self) -> Session:
        """The same network for another thread; closed with this one."""

    def close(self) -> None:
        """Free the network; closing twice is harmless."""
