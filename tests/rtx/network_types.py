"""Parse one ONNX as a strongly typed network of TensorRT-RTX and build it; print what came out as one line of JSON.

    python tests/rtx/network_types.py MODEL

`layers`: per kind of layer and type of its outputs how many there are. `tensors`: inputs and outputs with their types.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any


def build(model: Path) -> dict[str, Any]:
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        return {"bytes": 0, "errors": [str(parser.get_error(i)) for i in range(parser.num_errors)]}
    layers: Counter[str] = Counter()
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        outputs = (layer.get_output(k) for k in range(layer.num_outputs))
        layers.update(f"{layer.type.name} {tensor.dtype.name}" for tensor in outputs if tensor is not None)
    ends = [network.get_input(i) for i in range(network.num_inputs)]
    ends += [network.get_output(i) for i in range(network.num_outputs)]
    began = time.perf_counter()
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    return {
        "layers": layers,
        "tensors": {tensor.name: tensor.dtype.name for tensor in ends},
        "bytes": 0 if plan is None else plan.nbytes,
        "seconds": time.perf_counter() - began,
    }


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]))))
