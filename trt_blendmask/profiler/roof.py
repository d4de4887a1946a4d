"""The best that this CPU does in ONNX Runtime: multiply-adds of large convolutions and products, and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
from onnx import TensorProto, helper

from trt_blendmask.backends import Array
from trt_blendmask.backends.onnxruntime import available_cores, session_options
from trt_blendmask.profiler.report import Roof

_SIDE = 768  # of square matrices: 0.45 GMAC
_CHANNELS, _PLANE = 128, 56  # of a 3 x 3 convolution: 0.46 GMAC
_COPIED = 64 << 20  # bytes: more than the caches hold
_REPEATS = 8


def measure_roof(threads: int = 0) -> Roof:
    """Measure it, in about a second.

    Args:
        threads: for one operator, 0 for as many as this process may use, as in `OnnxRuntimeSession`.
    """
    count = threads or available_cores()
    peaks = {
        "FP32": max(_rate(_product(), threads), _rate(_convolution(), threads)),
        "INT8": _rate(_integer(), threads),
    }
    how = (
        f"ONNX Runtime, {count} thread{'s' if count > 1 else ''}: the best of {_REPEATS} runs of a {_SIDE} x {_SIDE} "
        f"product and a {_CHANNELS}-channel 3 x 3 convolution; a copy of {_COPIED >> 20} MiB"
    )
    return Roof(peaks, _copy_rate(count), how)


def _rate(made: tuple[onnx.ModelProto, int], threads: int) -> float:
    """10^9 multiply-adds in a second."""
    import onnxruntime

    model, macs = made
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )
    end = session.get_inputs()[0]
    dtype = np.uint8 if "uint8" in end.type else np.float32
    feeds = {end.name: np.random.default_rng(0).integers(0, 255, end.shape).astype(dtype)}
    return macs / 1e9 / _best_seconds(lambda: session.run(None, feeds))


def _copy_rate(threads: int) -> float:
    """10^9 bytes in a second, read and written, by as many threads as the layers have."""
    source = np.zeros(_COPIED, np.uint8)
    target = np.ones_like(source)  # written once, so that its pages are there
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return 2 * _COPIED / 1e9 / _best_seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _best_seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _product() -> tuple[onnx.ModelProto, int]:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model([node], (_SIDE, _SIDE), {"w": _random(_SIDE, _SIDE)}), _SIDE**3


def _convolution() -> tuple[onnx.ModelProto, int]:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    weights = _random(_CHANNELS, _CHANNELS, 3, 3)
    return _model([node], (1, _CHANNELS, _PLANE, _PLANE), {"w": weights}), _PLANE**2 * weights.size


def _integer() -> tuple[onnx.ModelProto, int]:
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    weights = (_random(_SIDE, _SIDE) * 50).astype(np.int8)
    return _model([node], (_SIDE, _SIDE), {"w": weights}, TensorProto.UINT8, TensorProto.INT32), _SIDE**3


def _model(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    weights: dict[str, Array],
    given: int = TensorProto.FLOAT,
    made: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info("x", given, shape)], [helper.make_tensor_value_info("y", made, None)]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "roof", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _random(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)
