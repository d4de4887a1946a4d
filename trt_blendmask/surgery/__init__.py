"""Raw-head ONNX to deployable ONNX: frames in, boxes, scores, classes and masks out, in fixed shapes.

`reading` takes any file to a graph with a checked raw head; `whole` cuts a graph that goes on behind the heads back to
them. Then one graph change per file, in the order they are made: images -> selection -> nms -> sparse_top -> roi_align,
tail_native -> outputs.
"""

from __future__ import annotations

from pathlib import Path

from trt_blendmask.errors import DataError, TrtBlendMaskError, first_line
from trt_blendmask.surgery.options import SurgeryOptions
from trt_blendmask.surgery.report import StepOutcome, SurgeryReport

__all__ = ["StepOutcome", "SurgeryOptions", "SurgeryReport", "operate"]

FAULT = TrtBlendMaskError.exit_code


def operate(raw: Path, output: Path, options: SurgeryOptions | None = None) -> SurgeryReport:
    """Write the deployable ONNX of a raw-head ONNX (ours or of AdelaiDet's exporter) or of a whole one with RoiAlign.

    Input `images` uint8 [N, H, W, 3] BGR (or float32 [N, 3, H, W] normalised); outputs `count` int32 [N], `boxes`
    float32 [N, D, 4] xyxy in input pixels, `scores` float32 [N, D] descending, `classes` int32 [N, D] and `masks`
    [N, D, R, R] probability, box-local; empty slots hold 0, and class -1. All shapes are static, all ops standard.

    A whole graph is cut back to its heads; a selection of fixed shapes in it is kept. A graph that is the blender alone
    keeps its inputs and outputs, and our tail takes the place of its core.

    Args:
        raw: the raw-head or whole ONNX. output: the file to write, whole or not at all. options: None for the defaults.

    Raises:
        InputMissingError: no such file. OutputError: `output` cannot be written.
        UsageError: an option out of range, or the output is an input.
        DataError: not a raw-head ONNX that can be operated on; the message names tensor or node and the reason.
    """
    from trt_blendmask.surgery.operation import perform

    try:
        return perform(Path(raw), Path(output), options or SurgeryOptions())
    except Exception as error:
        if isinstance(error, OSError) or getattr(error, "exit_code", FAULT) != FAULT:
            raise
        # Graphs contradict themselves in more ways than can be looked for, and onnx, GraphSurgeon and NumPy notice.
        raise DataError(
            f"'{raw}' cannot be operated on: {first_line(error)[:300]}. Export it again; if other tools take it, the "
            "fault is ours: pass --debug and report what comes."
        ) from error
