"""`quantize --precision int8`: from the float file and a table to the INT8 file, with what proves it harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from trt_blendmask.calibrate import graph_sha256, histograms_beside, read_histograms, read_table
from trt_blendmask.calibrate.pictures import choose, open_pictures
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.files import atomic_output, check_outputs, file_sha256
from trt_blendmask.quantize.bias_correction import PICTURES as MEANS
from trt_blendmask.quantize.files import Deployable, read_deployable, write_quantized
from trt_blendmask.quantize.fp16 import Typing, observe, type_half
from trt_blendmask.quantize.fp16_ranges import too_large
from trt_blendmask.quantize.gate import HELD_OUT, NOT_COMPARED, Verdict, held_out, judge, require, worst_beside
from trt_blendmask.quantize.int8 import Prepared, assemble_int8, correct_biases, prepare_int8
from trt_blendmask.quantize.onnxruntime_form import to_onnxruntime
from trt_blendmask.quantize.report import QuantisationReport, describe, tensor_rows, write_report
from trt_blendmask.quantize.sensitivity import Sensitivity, group_blocks, measure, runs, write_sensitivity
from trt_blendmask.runtime.progress import ProgressLine, StageClock
from trt_blendmask.structures import TABLE_MARK, U8, ModelSpec
from trt_blendmask.surgery.macs import macs_by_node

_NOT_CORRECTED = "biases were not corrected: pass --images, pictures of the calibration, to make up for rounding's mean"


@dataclass(frozen=True)
class Int8Options:
    """How `quantize_int8_file` works.

    Attributes:
        images: folder, list or video for the bias correction; empty: none. n: pictures of it at most.
        held_out: folder, list or video that calibration has not seen, for sensitivity and gate; empty: neither.
        report, sensitivity: HTML pages to write, each with a JSON file beside it.
        max_drop: points of mask AP that may be lost, as `sensitivity` estimates them; the cheapest blocks to leave in
            FP16 for it, and for the gate, are searched.
        force: write the file even if the gate is not passed.
        onnxruntime: the form that ONNX Runtime is fast at on a CPU, the rest float32, instead of that for TensorRT.
    """

    images: str = ""
    n: int = MEANS
    held_out: str = ""
    report: Path | None = None
    sensitivity: Path | None = None
    max_drop: float | None = None
    force: bool = False
    onnxruntime: bool = False
    shows_progress: bool = False


@dataclass(frozen=True)
class Int8Report:
    """What `quantize_int8_file` wrote; `verdict` is None where no pictures were held out, `typing` in the form for ONNX
    Runtime."""

    output: Path
    method: str
    corrected: bool
    typing: Typing | None
    made_of: QuantisationReport
    sensitivity: Sensitivity | None
    verdict: Verdict | None
    written: tuple[Path, ...]
    bytes_before: int
    bytes_after: int

    def lines(self) -> list[str]:
        """For the command line."""
        lines = [*self.sensitivity.lines(), ""] if self.sensitivity else []
        lines += [*self.made_of.lines(), ""]
        lines.append(f"{self.made_of.trunk_share:.1%} of the dense network's multiply-adds are INT8, by {self.method}")
        if self.typing:
            casts = self.typing.casts
            count = casts.to_half + casts.to_float
            lines.append(f"{count} casts, {casts.to_half} to float16, {casts.to_float} to float32")
            lines += [f"kept float32: what touches '{name}', {why}" for name, why in self.typing.kept.items()]
        if not self.corrected:
            lines.append(_NOT_CORRECTED)
        lines.append(self.verdict.sentence() if self.verdict else NOT_COMPARED)
        lines += [f"wrote {path}" for path in self.written]
        return [*lines, f"{self.output}: {self.bytes_before / 1e6:.1f} -> {self.bytes_after / 1e6:.1f} MB"]


def quantize_int8_file(model: Path, table: Path, output: Path, options: Int8Options | None = None) -> Int8Report:
    """Write the INT8 form of the float deployable `model`: Q and DQ by `table`, the rest float16 or float32 by type.

    Raises:
        InputMissingError, OutputError: a file that is not there or cannot be written.
        UsageError: an output that is an input, or sensitivity without held-out pictures.
        DataError: a table of another model, a model that is quantised already, or the gate is not passed.
    """
    given = options or Int8Options()
    pages = [page for page in (given.report, given.sensitivity) if page]
    beside = [page.with_suffix(".json") for page in pages]
    check_outputs([output, *pages, *beside, worst_beside(output)], [model, table])
    if (given.sensitivity or given.max_drop is not None) and not given.held_out:
        raise UsageError("--sensitivity and --max-drop compare with the float model: add --held-out DIR|LIST|VIDEO.")
    source = read_deployable(model)
    if given.held_out and source.spec.tail in ("plugin", "aot"):
        raise UsageError(
            f"--held-out runs the model in ONNX Runtime, which has no layer for --tail {source.spec.tail}: prove the "
            "same network with --tail native, then quantise this file without --held-out."
        )
    calibration = read_table(table, graph_sha256(source.model))
    prepared = prepare_int8(source.model, calibration)
    if given.images:
        prepared = correct_biases(prepared, source.spec, _images(given.images, given.n))
    seen = set(calibration.images)
    sensitivity = (
        _sensitivity(source, prepared, seen, given) if given.sensitivity or given.max_drop is not None else None
    )
    keep_float = sensitivity.keep_float if sensitivity else frozenset[str]()
    quantised = assemble_int8(prepared, keep_float)
    typing = None
    if given.onnxruntime:
        to_onnxruntime(quantised)
    else:
        typing = type_half(quantised, _overflows(prepared, calibration.ranges, source.spec, given))
    quantised.doc_string = f"{TABLE_MARK}{file_sha256(table)}"  # for 'build'
    histograms = histograms_beside(table)
    counts = read_histograms(histograms) if histograms.is_file() else {}
    made_of = describe(quantised, tensor_rows(prepared, keep_float, counts))
    written: list[Path] = []
    if given.sensitivity and sensitivity:
        written += write_sensitivity(sensitivity, output.name, given.sensitivity)
    verdict = None
    with atomic_output(output) as temporary:
        size = write_quantized(quantised, replace(source.spec, precision="int8"), temporary)
        if given.held_out:
            with _ticking(given.shows_progress, HELD_OUT) as tick:
                pictures = held_out(given.held_out, HELD_OUT, seen)
                verdict = judge(model, temporary, pictures, output, tick)
        if given.report:
            written += write_report(made_of, verdict, output.name, given.report)
        if verdict and not given.force:
            require(verdict, output)
    before = model.stat().st_size
    return Int8Report(
        output,
        calibration.method,
        bool(given.images),
        typing,
        made_of,
        sensitivity,
        verdict,
        tuple(written),
        before,
        size,
    )


def _sensitivity(source: Deployable, prepared: Prepared, seen: set[str], given: Int8Options) -> Sensitivity:
    pictures = list(held_out(given.held_out, HELD_OUT, seen))
    macs = {node.name: macs for node, _, macs in macs_by_node(prepared.model)}
    blocks = group_blocks(prepared.plan.layers, macs)

    def make(keep_float: frozenset[str]) -> onnx.ModelProto:
        return assemble_int8(prepared, keep_float)  # the rest in float32: a CPU has nothing faster

    with _ticking(given.shows_progress, runs(len(blocks), len(pictures))) as tick:
        return measure(source.path, blocks, make, pictures, given.max_drop, tick)


def _overflows(
    prepared: Prepared, ranges: Mapping[str, float], spec: ModelSpec, given: Int8Options
) -> Mapping[str, str]:
    """Activations that float16 cannot hold, with the reason: by the table and, of all of them, on the pictures."""
    found = too_large(ranges)
    if given.images:
        found |= too_large(observe(prepared.model, spec, given.images, given.n, given.shows_progress).largest)
    return found


def _images(text: str, n: int) -> Iterator[U8]:
    pictures = open_pictures(text)
    found = 0
    for picture in pictures.read(choose(pictures, n, False, lambda: None)):
        if picture.image is not None:
            found += 1
            yield picture.image
    if not found:
        raise DataError(f"Expected pictures in '{text}', but none of the {n} looked at can be read. Name others.")


@contextmanager
def _ticking(shown: bool, total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar, and what to call after each step."""
    clock = StageClock()
    with closing(ProgressLine(shown, total)) as line:
        yield lambda: line.step(clock)
