"""RoiAlignBlendAot, the quick plugin whose kernel TensorRT carries inside the engine (TensorRT >= 10.9).

The engine then needs neither this package nor libtrt_blendmask.so. TensorRT calls the three functions in `_register`
while it parses and builds.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from trt_blendmask.aot.attributes import TYPES, decode
from trt_blendmask.aot.compile import Target, compile_ptx, device_target
from trt_blendmask.aot.launch import plan
from trt_blendmask.aot.params import BlendParams
from trt_blendmask.aot.source import ENTRY, kernel_source
from trt_blendmask.errors import DataError, SourceUnavailableError

NAMESPACE = "trt_blendmask"
NAME = "RoiAlignBlendAot"
PLUGIN_ID = f"{NAMESPACE}::{NAME}"
INPUTS = ("bases", "boxes", "attention", "count")
HWC8_CHANNELS = 8  # of a pixel in the format HWC8, or a multiple


def register(target: Target | None = None) -> None:
    """Teach TensorRT's registry the plugin; call it before parsing a graph of `surgery --tail aot`.

    Args:
        target: what to compile for; None asks the driver when the engine is built. A second call changes nothing.

    Raises:
        SourceUnavailableError: TensorRT is missing or older than 10.9.
    """
    trt, trtp = _tensorrt()
    if trt.get_plugin_registry().get_creator(NAME, "1", NAMESPACE) is None:
        _register(trt, trtp, target)


def _tensorrt() -> tuple[Any, Any]:
    hint = "make the model with surgery --tail plugin or --tail native"
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as error:
        raise SourceUnavailableError(
            f"Expected TensorRT 10.9 or newer for the AOT tail, got none: pip install tensorrt, or {hint}."
        ) from error
    if not hasattr(trt, "QuickPluginCreationRequest"):  # came with them
        raise SourceUnavailableError(
            f"Expected TensorRT 10.9 or newer for the AOT tail, got {trt.__version__}: {hint}."
        )
    return trt, importlib.import_module("tensorrt.plugin")


def _register(trt: Any, trtp: Any, target: Target | None) -> None:
    types = {"float32": trt.float32, "float16": trt.float16}
    names = {trt.float32: "float32", trt.float16: "float16"}
    shorts = {trt.float32: "FP32", trt.float16: "FP16"}
    outputs_type = {"outputs": tuple[trtp.TensorDesc]}

    def describe(*inputs: Any, **attributes: Any) -> Any:
        """The shape [N, D, R, R] and type of the masks."""
        slots, given = inputs[1].shape_expr, decode(attributes)
        r = given["mask_size"]
        return trtp.from_shape_expr((slots[0], slots[1], r, r), types[given["mask_dtype"]])

    def combinations(bases: Any, _: Any, attention: Any, __: Any, outputs: Any) -> Any:
        """The graph's types; the bases plane by plane, or pixel by pixel where TensorRT finds that faster."""
        dtypes = ", ".join((shorts[bases.dtype], "FP32", shorts[attention.dtype], "INT32", shorts[outputs[0].dtype]))
        formats = ("LINEAR", "HWC" if bases.dtype == trt.float32 else "HWC8")
        return [trtp.AutoTuneCombination(dtypes, ", ".join((f, *["LINEAR"] * 4))) for f in formats]

    def compiled(*arguments: Any) -> Any:
        """The kernel's name, its PTX, how it is launched, and its scalars: there are none."""
        bases, boxes, attention, _ = arguments[: len(INPUTS)]
        *arrays, outputs, _ = arguments[len(INPUTS) :]
        attributes = decode(dict(zip(TYPES, arrays, strict=True)))
        (batch, num_bases, bases_h, bases_w), detections = _fixed(bases.shape), _fixed(boxes.shape)[1]
        params = BlendParams(
            num_bases=num_bases,
            bases_h=bases_h,
            bases_w=bases_w,
            batch=batch,
            detections=detections,
            bases_type=names[bases.dtype],
            attention_type=names[attention.dtype],
            masks_type=names[outputs[0].dtype],
            pixel_channels=_pixel_channels(num_bases, bases.format, trt.TensorFormat),
            **{name: value for name, value in attributes.items() if name != "mask_dtype"},
        )
        gpu = target or device_target()
        launch = plan(params, gpu.multiprocessors)
        sizes = trtp.KernelLaunchParams(*launch.grid, *launch.block, launch.shared_bytes)
        return ENTRY, compile_ptx(kernel_source(params, launch), gpu.arch), sizes, trtp.SymIntExprs(0)

    trtp.register(PLUGIN_ID)(_signed(describe, trtp, TYPES, trtp.TensorDesc))
    trtp.autotune(PLUGIN_ID)(_signed(combinations, trtp, outputs_type, list[trtp.AutoTuneCombination]))
    result = tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
    trtp.aot_impl(PLUGIN_ID)(_signed(compiled, trtp, {**TYPES, **outputs_type, "tactic": int}, result))


def _signed(function: Callable[..., Any], trtp: Any, more: Mapping[str, Any], returns: Any) -> Callable[..., Any]:
    """`function` with the signature that tensorrt.plugin asks of it: the inputs, then `more`."""
    annotations = {**dict.fromkeys(INPUTS, trtp.TensorDesc), **more}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=each) for name, each in annotations.items()]
    function.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    return function


def _fixed(shape: Any) -> tuple[int, ...]:
    if min(shape) < 0:  # each shape would load a kernel of its own, and TensorRT lets go of none
        raise DataError(f"{NAME} got the shape {tuple(shape)}, expected a fixed one: pass --tail native.")
    return tuple(shape)


def _pixel_channels(num_bases: int, tensor_format: Any, formats: Any) -> int:
    """Slots per pixel in memory, or 0 where the bases lie plane by plane."""
    if tensor_format == formats.LINEAR:
        return 0
    return num_bases if tensor_format == formats.HWC else -(-num_bases // HWC8_CHANNELS) * HWC8_CHANNELS
