"""Checkpoint to raw-head ONNX without PyTorch: reader -> config -> backbone, FPN, head, basis -> one ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_blendmask.errors import UsageError
from trt_blendmask.export.config import BlendMaskConfig, as_config, read_config
from trt_blendmask.files import check_outputs
from trt_blendmask.structures import ModelSpec

__all__ = ["BlendMaskConfig", "ExportReport", "as_config", "export_onnx", "read_config"]


@dataclass(frozen=True)
class ExportReport:
    """What `export_onnx` wrote.

    Attributes:
        output: the ONNX file. spec: the metadata inside it (kind "raw-head").
        parameters: weights in the graph after folding, shared ones once.
        macs: multiply-adds of all convolutions for one run (the whole batch).
        ignored_keys: what the checkpoint holds besides the network: optimiser, training-only heads, counters.
        size_bytes: of the ONNX file.
        deform_ops: how many DeformConv nodes it has.
    """

    output: Path
    spec: ModelSpec
    parameters: int
    macs: int
    ignored_keys: tuple[str, ...]
    size_bytes: int
    deform_ops: int

    def summary(self) -> str:
        """One line for a person."""
        (h, w), levels = self.spec.input_hw, len(self.spec.strides)
        deform = f", {self.deform_ops} DeformConv: for ONNX Runtime 1.25 or later, TensorRT does not know it"
        return (
            f"{self.output}: {h}x{w} (HxW) in, {levels} levels, {self.spec.num_classes} classes, "
            f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e9:.2f} G multiply-adds, "
            f"{self.size_bytes / 1e6:.1f} MB{deform if self.deform_ops else ''}"
        )


def export_onnx(
    checkpoint: Path,
    config: Path | BlendMaskConfig | None,
    output: Path,
    input_hw: tuple[int, int] | None = None,
    batch: int = 1,
    deform: str = "native",
) -> ExportReport:
    """Write the raw-head ONNX of a BlendMask checkpoint; torch is not needed and nothing in the file is executed.

    Args:
        checkpoint: `.pth` (zip or older form) or `.safetensors`, with AdelaiDet's key names.
        config: AdelaiDet YAML, its `_BASE_` is followed; or what `read_config` gives. None raises a UsageError that
            says which published model has the shapes of the checkpoint.
        output: the ONNX file; written whole or not at all.
        input_hw: input height and width in pixels, multiples of 32. None: the YAML's INPUT.SIZE_HW, else
            (MIN_SIZE_TEST, MAX_SIZE_TEST), each rounded up to a multiple of 32.
        batch: N, images per run.
        deform: how deformable convolutions are written: "native" as standard ops that every runtime builds, "op" as
            ONNX's DeformConv (opset 19), which ONNX Runtime knows since 1.25 and TensorRT does not.

    Returns:
        Sizes and metadata of the file written.

    Raises:
        InputMissingError: a file is not there. UsageError: input size or batch out of range, or the output is an input.
        DataError: a file is damaged or of another kind, or weights and configuration do not belong together.
        NotTrustedError: a file asks for code to be run. OutputError: `output` cannot be written.
    """
    from trt_blendmask.export.advice import advise
    from trt_blendmask.export.assemble import build_model
    from trt_blendmask.export.reader import read_checkpoint
    from trt_blendmask.export.write import write_model
    from trt_blendmask.zoo.record import check_record

    if config is None:
        raise UsageError(f"Say what network '{checkpoint}' is of. {advise(read_checkpoint(checkpoint))}")
    settings = as_config(config)
    check_outputs([output], [checkpoint, *settings.files])
    settings.check_exportable()
    spec = settings.model_spec(input_hw)
    check_record(Path(checkpoint))
    built = build_model(read_checkpoint(checkpoint), settings, spec, batch, deform)
    size_bytes = write_model(built.model, built.weights, output)
    return ExportReport(
        Path(output), spec, built.parameters, built.macs, built.ignored_keys, size_bytes, built.deform_ops
    )
