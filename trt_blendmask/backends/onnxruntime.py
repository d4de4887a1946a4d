"""ONNX Runtime on the CPU: the backend that needs nothing else installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from trt_blendmask.backends import Array
from trt_blendmask.errors import DataError, first_line
from trt_blendmask.files import existing_file
from trt_blendmask.structures import METADATA_KEY, TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_HINT = "Give the model.onnx that 'trt-blendmask surgery raw.onnx -o model.onnx' writes."


class OnnxRuntimeSession:
    """`trt_blendmask.backends.Session` of an ONNX graph; several threads may run it at once."""

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        """Load `path`; `threads` for one operator, 0 for as many as this process may use.

        Raises:
            InputMissingError: no such file.
            DataError: not an ONNX file, truncated, or with operators that ONNX Runtime does not have.
        """
        import onnxruntime

        from trt_blendmask.onnx_bounds import check_runnable

        self.path = existing_file(path, "a deployable ONNX model", _HINT)
        model = check_runnable(self.path.read_bytes(), self.path)
        options = session_options(threads)
        try:
            session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=harmful(model)
            )
        except Exception as error:  # ONNX Runtime's own exceptions share no public base class
            raise DataError(
                f"Expected an ONNX model at '{self.path}', but ONNX Runtime cannot load it: {_reason(error)}. {_HINT}"
            ) from error
        self._session: onnxruntime.InferenceSession | None = session
        self.inputs = tuple(_tensor_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_tensor_spec(value) for value in session.get_outputs())
        self.metadata = str(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, ""))
        cores = available_cores()
        self.abreast = max(1, cores // (threads or cores))
        self.how = f"ONNX Runtime {onnxruntime.__version__} on the CPU ({cores} core{'s' if cores > 1 else ''})"

    def input_buffer(self) -> Array:
        return np.zeros(self.inputs[0].shape, np.dtype(self.inputs[0].dtype))

    def run(self, images: Array) -> dict[str, Array]:
        """Feed the first input; return the outputs by name.

        Raises:
            DataError: the model was closed, or contradicts itself in a way that shows only now.
        """
        if self._session is None:
            raise DataError(f"The model '{self.path}' was closed: load it again.")
        names = [spec.name for spec in self.outputs]
        try:
            values = self._session.run(names, {self.inputs[0].name: images})
        except Exception as error:  # ONNX Runtime's own exceptions share no public base class
            raise DataError(f"The model '{self.path}' cannot be run: {_reason(error)}. {_HINT}") from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def twin(self) -> OnnxRuntimeSession:
        return self

    def close(self) -> None:
        self._session = None


def session_options(threads: int = 0) -> onnxruntime.SessionOptions:
    """How every graph is run: `threads` for one operator, 0 for as many as this process may use."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # what goes wrong is raised; the library need not print it as well
    # Threads that spin while they wait take the cores from the decoder, the overlay and the encoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def available_cores() -> int:
    """Cores that this process may use (a container or taskset may allow fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def harmful(model: onnx.ModelProto) -> list[str]:
    """Optimizers of ONNX Runtime to leave out.

    WeightBiasQuantization rounds the biases of INT8 convolutions to multiples of a small step, and reckons in the type
    of the biases: where that is float16, multiples above 2048 lose digits and those above 65504 become infinite (1.31).
    """
    import onnx

    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return ["WeightBiasQuantization"] if quantised and half else []


def _tensor_spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)


def _reason(error: Exception) -> str:
    return first_line(error).split(" : ")[-1].strip().rstrip(".")[:200]
