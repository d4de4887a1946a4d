"""What TensorRT complains about, in our words: which part of BlendMask, what came, what to type next."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

import onnx

from trt_blendmask.engines.build import BuildRefusedError, ParserComplaint
from trt_blendmask.engines.child import ChildDiedError
from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.errors import DataError, SourceUnavailableError, TrtBlendMaskError
from trt_blendmask.surgery.macs import part_of, static_shapes

_PARTS = {
    "backbone": "the backbone",
    "fpn": "the feature pyramid",
    "towers": "the head's towers",
    "predictors": "the head's predictors",
    "basis": "the basis module",
    "top_layer": "the top layer",
    "selection": "the selection of detections",
    "tail": "the tail",
    "": "the network",
}
_SURGERY = "trt-blendmask surgery raw.onnx{} -o model.onnx"
_MADE_AFRESH = "Make the file again: " + _SURGERY.format("")
_INSTEAD = {
    "NonMaxSuppression": "Choose the suppression of fixed shapes: " + _SURGERY.format(" --nms matrix"),
    "NonZero": "Choose the suppression of fixed shapes: " + _SURGERY.format(" --nms matrix"),
    "RoiAlignBlend": "Choose standard ops: " + _SURGERY.format(" --tail native"),
    "RoiAlignBlendAot": "Choose standard ops: " + _SURGERY.format(" --tail native"),
    "RoiAlign": "Let surgery replace it: trt-blendmask surgery FILE.onnx -o model.onnx",
    "DeformConv": "Choose standard ops: trt-blendmask export CHECKPOINT --config YAML --deform native -o raw.onnx, "
    + "then "
    + _SURGERY.format(""),
    "QuantizeLinear": "Quantise for TensorRT: trt-blendmask quantize model.onnx --precision int8 --from table.json",
    "DequantizeLinear": "Quantise for TensorRT: trt-blendmask quantize model.onnx --precision int8 --from table.json",
}
_NO_GPU = r"no CUDA-capable device|cudaError 100\b|error: 100\b"
_OLD_DRIVER = r"driver version is insufficient|cudaError 35\b|error: 35\b|cudaErrorInsufficientDriver"
_MEMORY = r"out ?of ?memory|insufficient memory|cudaError 2\b|failed_allocation|bad_alloc"
_GPU_UNKNOWN = r"no kernel image|unsupported SM|SM.{0,12}not supported|target GPU .{0,20}not supported"
_HEAD = re.compile(r"^(\[[^\]]*\] ?)?(I\w+::\w+: )?(Error Code \d+: )?")


def explain(
    problem: BuildRefusedError | ChildDiedError, flavor: Flavor, model: onnx.ModelProto, path: Path, what: str = ""
) -> TrtBlendMaskError:
    """The sentence, and the exit code, for a build that gave no plan.

    Args:
        model: what was to be built, read from `path`. what: which part of it, if not the whole ("the tail").
    """
    name = f"{what} of '{path}'" if what else f"'{path}'"
    if isinstance(problem, ChildDiedError):
        return _died(problem, flavor, name)
    text = "\n".join(problem.log)
    hardware = _hardware(text, flavor, path)
    if problem.stage == "parse" and problem.complaints:
        return _parse(problem.complaints, flavor, model, name)
    if hardware is not None:
        return hardware
    if problem.stage == "start":
        return SourceUnavailableError(
            f"{flavor.title} does not start: {_reason(problem.log)}. Type: trt-blendmask doctor"
        )
    verb = "read" if problem.stage == "parse" else "build"
    node = _mentioned(text, model)
    if node is None:
        return DataError(f"{flavor.title} does not {verb} {name}: {_reason(problem.log)}. {_MADE_AFRESH}")
    return DataError(
        f"{flavor.title} does not {verb} {name}: {_told(node, model)} fails ({_reason(problem.log)}). "
        f"{_INSTEAD.get(node.op_type, _MADE_AFRESH)}"
    )


def _parse(
    complaints: Sequence[ParserComplaint], flavor: Flavor, model: onnx.ModelProto, name: str
) -> TrtBlendMaskError:
    first = complaints[0]
    node = next((n for n in model.graph.node if n.name == first.node and n.op_type == first.op), None)
    told = _told(node, model) if node is not None else f"{first.op or 'a node'} '{first.node}'"
    more = f", nor {len(complaints) - 1} more" if len(complaints) > 1 else ""
    return DataError(
        f"{flavor.title} does not read {name}: {told} is not supported{more} ({_clean(first.text)}). "
        f"{_INSTEAD.get(first.op, _MADE_AFRESH)}"
    )


def _told(node: onnx.NodeProto, model: onnx.ModelProto) -> str:
    """ "DeformConv 'res3.conv2' in the backbone (1x128x40x64 -> 1x128x40x64)"."""
    part = _PARTS[part_of(node.name, list(node.input))]
    try:
        shapes = static_shapes(model)
    except DataError:
        shapes = {}
    sides = [["x".join(map(str, shapes.get(n, ()))) for n in row[:1]] for row in (node.input, node.output)]
    known = [side[0] for side in sides if side and side[0]]
    return f"{node.op_type} '{node.name:.80}' in {part}" + (f" ({' -> '.join(known)})" if known else "")


def _mentioned(text: str, model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The node with the longest name in `text`; TensorRT's layers are called as the nodes, with something behind."""
    found = [n for n in model.graph.node if len(n.name) > 2 and re.search(rf"(?<![\w.]){re.escape(n.name)}", text)]
    return max(found, key=lambda node: len(node.name), default=None)


def _hardware(text: str, flavor: Flavor, path: Path) -> TrtBlendMaskError | None:
    if re.search(_NO_GPU, text, re.I):
        return no_gpu(flavor)
    if re.search(_OLD_DRIVER, text, re.I):
        return SourceUnavailableError(
            f"{flavor.title} needs a newer NVIDIA driver than is installed, or there is none: update it, or install "
            "TensorRT for the CUDA that nvidia-smi shows. Type: trt-blendmask doctor"
        )
    if re.search(_MEMORY, text, re.I):
        return SourceUnavailableError(
            f"{flavor.title} runs out of memory ({_reason(text.splitlines())}): close other programs, raise "
            "--workspace if it was given, or try --opt-level 2."
        )
    if re.search(_GPU_UNKNOWN, text, re.I):
        return SourceUnavailableError(
            f"{flavor.title} does not know this GPU ({_reason(text.splitlines())}): install a version that does. Type: "
            "trt-blendmask doctor"
        )
    if "for Turing" in text and "FP32" in text:
        return DataError(
            f"{flavor.title} builds no float32 for compute capability 7.5: type trt-blendmask quantize "
            f"{shlex.quote(str(path))} --precision fp16 and build that, or leave 7.5 out of --compute-capability."
        )
    if "libnvinfer_lean" in text:
        return SourceUnavailableError(
            f"{flavor.title} lacks its lean runtime, which --version-compatible puts into the engine: install it, or "
            "add --exclude-lean."
        )
    return None


def is_of_the_machine(text: str) -> bool:
    """Whether TensorRT complains of the GPU, its memory or its driver, and not of what it was given."""
    return re.search("|".join((_NO_GPU, _OLD_DRIVER, _MEMORY, _GPU_UNKNOWN)), text, re.I) is not None


def no_gpu(flavor: Flavor) -> SourceUnavailableError:
    """The sentence for full TensorRT on a machine without a GPU."""
    return SourceUnavailableError(
        f"{flavor.title} builds engines only on the GPU that they are for, and the driver shows none: type "
        "trt-blendmask doctor, or build for desktop GPUs with --flavor rtx, which needs none."
    )


def refuse_plugin(flavor: Flavor, path: Path, tail: str) -> DataError:
    """The sentence for a graph with a layer of ours and a TensorRT-RTX, which has no plugins and would end."""
    return DataError(
        f"{flavor.title} has no plugin layers, but '{path}' was made with --tail {tail}. Make it with standard ops: "
        + _SURGERY.format(" --tail native")
        + f", or build {shlex.quote(str(path))} with --flavor tensorrt"
    )


def _died(problem: ChildDiedError, flavor: Flavor, name: str) -> TrtBlendMaskError:
    phase = f" during '{problem.phase}'"
    if problem.code == -signal.SIGKILL:
        return SourceUnavailableError(
            f"The system ended the build of {name}{phase}, most often because memory ran out: close other programs, "
            "add swap, or lower --workspace."
        )
    how = signal.Signals(-problem.code).name if problem.code < 0 else f"exit code {problem.code}"
    lines = [line for line in (*problem.log, *problem.words.splitlines()) if line.strip()]
    said = f"; it said: {_clean(lines[-1])}" if lines else ""
    return TrtBlendMaskError(
        f"{flavor.title} ended its process ({how}){phase} over {name}{said}. Try --opt-level 2, or another version of "
        "TensorRT; if the file is not ours: trt-blendmask surgery raw.onnx -o model.onnx"
    )


def _reason(log: Sequence[str]) -> str:
    return _clean(next((line for line in log if line.strip()), "it gives no reason"))


def _clean(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it gives no reason")
    return re.sub(r" In \w+ at /_src/\S+", "", _HEAD.sub("", line)).rstrip(".")[:300]
