"""A deployable ONNX in float32 in, one out in which every tensor has the type that TensorRT is to work in.

Converters that exist were looked at. The one of onnxconverter-common goes by kinds of operators and names of nodes,
while here the same kinds work in float16 in the blender and in float32 in the decoding; ModelOpt's AutoCast goes by
measured ranges, knows nothing of what has to stay float32 for the sake of pixels, and needs PyTorch. So this is ours:
`types` reads what an operator allows, `fp16_choice` decides, `fp16_place` writes.

Group norms work in float16 as one unit, TensorRT's normalisation layer: by its documentation its statistics are float32
whatever its tensors are, and NVIDIA's parser maps a float16 LayerNormalization, which ONNX wants computed in float32
(stash_type), to the bare layer, too. The logits of a 550_R_50 come out as far from float32's (4.6e-4 of their size)
with the norms in float16 as with them in float32, which would cost two casts and twice the traffic for each. What all
of it costs in AP is measured by benchmarks/fp16_accuracy.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from trt_blendmask.calibrate.pictures import choose, open_pictures
from trt_blendmask.errors import DataError, TrtBlendMaskError
from trt_blendmask.files import check_outputs
from trt_blendmask.quantize.files import read_deployable, write_quantized
from trt_blendmask.quantize.fp16_choice import choose_half, touched
from trt_blendmask.quantize.fp16_place import Casts, place_half
from trt_blendmask.quantize.fp16_ranges import LIMIT, Largest, too_large, unfit_constants
from trt_blendmask.quantize.types import FloatGraph, declare_types, drop_output_casts, read_floats
from trt_blendmask.runtime.letterbox import Letterboxer
from trt_blendmask.runtime.progress import ProgressLine, StageClock
from trt_blendmask.structures import ModelSpec
from trt_blendmask.surgery.reading.merge_weights import without_weights

PICTURES = 64  # by default
SHOWN = 20  # names of tensors, at most
_MULTIPLIES = {"Conv", "ConvTranspose", "DeformConv", "MatMul", "Gemm"}


@dataclass(frozen=True)
class Typing:
    """What became of a graph.

    Attributes:
        half, total: how many convolutions and matrix products work in float16, and how many there are.
        kept: tensors for whose sake nodes stayed float32, with the reason.
    """

    half: int
    total: int
    casts: Casts
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """The activations that float16 was thought of for, on so many pictures; `left_out` could not be read."""

    largest: Mapping[str, float]
    pictures: int
    left_out: int


@dataclass(frozen=True)
class Fp16Report:
    """What `quantize_fp16` wrote; `observed` is None where no pictures were given."""

    typing: Typing
    observed: Observed | None
    output: Path
    bytes_before: int
    bytes_after: int

    def lines(self) -> list[str]:
        """For the command line."""
        typing, casts = self.typing, self.typing.casts
        lines = [
            f"{typing.half} of {typing.total} convolutions and products work in float16; decoding, scores, choice, "
            "suppression and places to sample at in float32",
            f"{casts.to_half + casts.to_float} casts, {casts.to_half} to float16 and {casts.to_float} to float32: one "
            "per tensor and direction",
        ]
        if self.observed is None:
            lines.append("activations were not looked at: pass --images to find those that float16 cannot hold")
        else:
            name, value = max(self.observed.largest.items(), key=lambda item: item[1], default=("", 0.0))
            left_out = f" ({self.observed.left_out} could not be read)" if self.observed.left_out else ""
            lines.append(
                f"{self.observed.pictures} pictures{left_out}: the largest activation is {value:.6g}, in '{name}'; "
                f"float32 is kept from {LIMIT:.6g} on"
            )
        kept = [f"kept float32: what touches '{name}', {reason}" for name, reason in typing.kept.items()]
        lines += [*kept[:SHOWN], *([f"and {len(kept) - SHOWN} more"] if len(kept) > SHOWN else [])]
        mb = [size / 1e6 for size in (self.bytes_before, self.bytes_after)]
        return [*lines, f"{self.output}: {mb[0]:.1f} -> {mb[1]:.1f} MB"]


def quantize_fp16(
    model: Path, output: Path, images: str = "", n: int = PICTURES, shows_progress: bool = False
) -> Fp16Report:
    """Write the strongly typed float16 form of a deployable ONNX; inputs and outputs stay as they are.

    Args:
        images: a folder, list or video to look for activations on that float16 cannot hold; empty: none.
        n: pictures at most.

    Raises:
        InputMissingError: no such file or pictures. OutputError: `output` cannot be written.
        UsageError: `output` is the model.
        DataError: not a deployable ONNX in float32, NaN in it or in what it computes, or no picture can be read.
    """
    check_outputs([output], [model])
    source = read_deployable(model)
    size = model.stat().st_size
    observed = observe(source.model, source.spec, images, n, shows_progress) if images else None
    typing = type_half(source.model, too_large(observed.largest) if observed else {})
    written = write_quantized(source.model, replace(source.spec, precision="fp16"), output)
    return Fp16Report(typing, observed, output, size, written)


def type_half(model: onnx.ModelProto, reasons: Mapping[str, str] | None = None) -> Typing:
    """Give every tensor of a float32 graph, Q and DQ among its nodes or not, its type, in place.

    Args:
        reasons: tensors that must stay float32, by name, each with the reason.

    Raises:
        DataError: the graph's types contradict one another.
    """
    declared_half = drop_output_casts(model)
    graph = read_floats(model)
    for output in declared_half:
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    kept = dict(reasons or {})
    half = choose_half(graph, kept)
    if unfit := unfit_constants(graph, _touched(graph, half) & graph.constants):
        kept |= unfit
        half = choose_half(graph, kept)
    multiplies = [i for i, node in enumerate(model.graph.node) if node.op_type in _MULTIPLIES]
    casts = place_half(graph, half)
    declare_types(model)
    _check(model)
    return Typing(sum(i in half for i in multiplies), len(multiplies), casts, kept)


def observe(model: onnx.ModelProto, spec: ModelSpec, images: str, n: int, shows_progress: bool) -> Observed:
    """Run `model` (float32) on pictures and measure what would be float16.

    Raises:
        InputMissingError, DataError, UsageError: no pictures, none that can be read, or NaN.
    """
    pictures = open_pictures(images)
    chosen = set(choose(pictures, n, False, lambda: None))
    graph = read_floats(model)
    largest = Largest(model, _touched(graph, choose_half(graph)) - graph.constants)
    letterboxer, batch = Letterboxer(spec), model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    clock, seen = StageClock(), 0
    with closing(ProgressLine(shows_progress, len(chosen))) as line:
        for picture in pictures.read(chosen):
            if picture.image is not None:
                with clock.measure("network"):
                    largest.see(np.repeat(letterboxer(picture.image)[0], batch, axis=0))
                seen += 1
            line.step(clock)
    if not seen:
        raise DataError(f"Expected pictures in '{images}', but none of {len(chosen)} can be read. Name another folder.")
    return Observed(largest.values, seen, len(chosen) - seen)


def _touched(graph: FloatGraph, half: frozenset[int]) -> set[str]:
    return {name for i in half for name in touched(graph, i, graph.ends[i])}


def _check(model: onnx.ModelProto) -> None:
    """A failure here is our own fault, not the user's."""
    try:
        onnx.checker.check_model(without_weights(model), full_check=True)
    except Exception as error:
        raise TrtBlendMaskError(f"Typing made a graph that does not check: {error}") from error
