"""Parse and build one ONNX with TensorRT-RTX, which needs no GPU for it, and print what came out as one line of JSON.

    python tests/rtx/build_engine.py MODEL

A process of its own: TensorRT-RTX ends the process on some graphs it does not know.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def build(model: Path) -> dict[str, Any]:
    """Inputs and outputs by name with type and shape, layers, and bytes of the engine (0: it was not built)."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        return {"bytes": 0, "errors": [str(parser.get_error(i)) for i in range(parser.num_errors)]}
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    tensors = {t.name: [t.dtype.name, list(t.shape)] for t in (*inputs, *outputs)}
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    return {"bytes": 0 if plan is None else plan.nbytes, "layers": network.num_layers, "tensors": tensors}


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]))))
