"""Parse and build one ONNX with TensorRT-RTX, which needs no GPU for it, and print what came out as one line of JSON.

    python tests/rtx/build_engine.py MODEL [--types | --layers]

A process of its own: TensorRT-RTX ends the process on some graphs it does not know.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

# How the builder's verbose log, which needs no GPU, lists a convolution of the engine.
BUILT = re.compile(r"^Name: (.+?)(?:_U\d+)?_myl\d+_\d+, LayerType: correlation, Inputs: \[.*?Datatype: (\w+)", re.M)


def parsed(model: Path, logger: Any) -> tuple[Any, Any, Any, list[str]]:
    """Builder, strongly typed network, the parser, which keeps its weights alive, and why it could not be parsed."""
    import tensorrt_rtx as trt

    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if parser.parse(model.read_bytes()):
        return builder, network, parser, []
    return builder, network, parser, [str(parser.get_error(i)) for i in range(parser.num_errors)] or ["no reason given"]


def ends(network: Any) -> list[Any]:
    """Inputs, then outputs."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    return inputs + [network.get_output(i) for i in range(network.num_outputs)]


def build(model: Path) -> dict[str, Any]:
    """Inputs and outputs by name with type and shape, layers, and bytes of the engine (0: it was not built)."""
    import tensorrt_rtx as trt

    builder, network, _parser, errors = parsed(model, trt.Logger(trt.Logger.ERROR))
    if errors:
        return {"bytes": 0, "errors": errors}
    tensors = {t.name: [t.dtype.name, list(t.shape)] for t in ends(network)}
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    return {"bytes": 0 if plan is None else plan.nbytes, "layers": network.num_layers, "tensors": tensors}


def build_with_types(model: Path) -> dict[str, Any]:
    """What types the network has.

    Returns:
        `layers`: per kind of layer and type of its outputs how many there are. `tensors`: inputs and outputs by name
        with their types. `bytes` of the engine and `seconds` of building it.
    """
    import tensorrt_rtx as trt

    builder, network, _parser, errors = parsed(model, trt.Logger(trt.Logger.ERROR))
    if errors:
        return {"bytes": 0, "errors": errors}
    layers: Counter[str] = Counter()
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        outputs = (layer.get_output(k) for k in range(layer.num_outputs))
        layers.update(f"{layer.type.name} {tensor.dtype.name}" for tensor in outputs if tensor is not None)
    tensors = {tensor.name: tensor.dtype.name for tensor in ends(network)}
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    seconds = time.perf_counter() - start
    return {"bytes": 0 if plan is None else plan.nbytes, "seconds": seconds, "layers": layers, "tensors": tensors}


def build_with_layers(model: Path) -> dict[str, Any]:
    """What became of the convolutions.

    Returns:
        `parsed`: by name the multiply-adds, the type of the input, and that of weights that are no plain constant;
        where a DequantizeLinear makes them, the type of its codes. `built`: by name the type that the engine's kernel
        reads. `bytes` of the engine and `seconds` of building it.
    """
    import tensorrt_rtx as trt

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.text: list[str] = []

        def log(self, _severity: Any, message: str) -> None:
            self.text.append(message)

    log = Log()
    builder, network, _parser, errors = parsed(model, log)
    if errors:
        return {"bytes": 0, "errors": errors}
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    codes = {y.get_output(0).name: y.get_input(0).dtype.name for y in layers if y.type == trt.LayerType.DEQUANTIZE}
    convolutions = {}
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer
            taps = math.prod(layer.kernel_size_nd) * layer.get_input(0).shape[1] // layer.num_groups
            inputs = [x for i in range(layer.num_inputs) if (x := layer.get_input(i)) is not None]
            kinds = [codes.get(x.name, x.dtype.name) for x in inputs]
            convolutions[layer.name] = [math.prod(layer.get_output(0).shape) * taps, *kinds]
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - start
    built = dict(BUILT.findall("\n".join(log.text)))
    return {"bytes": 0 if plan is None else plan.nbytes, "seconds": seconds, "parsed": convolutions, "built": built}


if __name__ == "__main__":
    runs = {"--types": build_with_types, "--layers": build_with_layers}
    run = runs[sys.argv[2]] if len(sys.argv) > 2 else build
    print(json.dumps(run(Path(sys.argv[1]))))
