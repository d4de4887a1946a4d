"""From a checked ONNX model to a graph that surgery can work on: shapes known, arithmetic on shapes folded."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from trt_blendmask.errors import DataError

RESERVED = ("images", "count", "boxes", "scores", "classes", "masks")


def read_graph(model: onnx.ModelProto, path: Path) -> gs.Graph:
    """The graph with the shapes of all its tensors; weights are no inputs.

    Raises:
        DataError: the file's parts contradict one another.
    """
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        graph = gs.import_onnx(inferred)
    except Exception as error:  # onnx raises several kinds, some from C++
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError(
            f"'{path}' is an ONNX file that does not hold together: {reason.rstrip('.')}. "
            "Type: trt-blendmask export CHECKPOINT --config YAML -o raw.onnx"
        ) from error
    graph.name = "blendmask"
    weights = {tensor.name for tensor in model.graph.initializer}  # older exporters list weights as inputs too
    graph.inputs = [tensor for tensor in graph.inputs if tensor.name not in weights]
    return graph


def free_names(graph: gs.Graph) -> None:
    """Rename tensors that have one of the names the deployable contract needs."""
    for name, tensor in graph.tensors().items():
        if name in RESERVED:
            tensor.name = f"raw.{name}"


def fold_constants(graph: gs.Graph) -> bool:
    """Shape arithmetic becomes constants: all shapes are known, and TensorRT parses less. False: there was none."""
    if not any(node.op in ("Shape", "Constant", "ConstantOfShape") for node in graph.nodes):
        return False
    onnxruntime.set_default_logger_severity(4)  # it folds for us, and has remarks on the way
    try:
        graph.fold_constants().cleanup().toposort()
    finally:
        onnxruntime.set_default_logger_severity(2)
    return True
