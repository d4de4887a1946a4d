"""From the graph that was worked on to a checked model."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from trt_blendmask.errors import TrtBlendMaskError
from trt_blendmask.surgery.reading.load import OLDEST_IR
from trt_blendmask.surgery.reading.merge_weights import without_weights


def export_checked(graph: gs.Graph) -> onnx.ModelProto:
    """The checked model; a failure here is our own fault, not the user's."""
    model = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = max(
        OLDEST_IR, onnx.helper.find_min_ir_version_for(model.opset_import, True)
    )  # but for our domain
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except Exception as error:
        raise TrtBlendMaskError(f"Surgery made a graph that does not check: {error}") from error
    return model
