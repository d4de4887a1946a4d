"""The verb `surgery`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from trt_blendmask.cli import config_options, values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "surgery",
        "turn a raw-head ONNX (ours or AdelaiDet's) or a whole one into the deployable ONNX: frames in, masks out",
        "  trt-blendmask surgery raw.onnx -o model.onnx\n"
        "  trt-blendmask surgery adelaidet.onnx --config RT_R_50.yaml --max-detections 50 --mask-dtype uint8",
    )
    p.add_argument("raw", type=Path, metavar="RAW", help="raw-head ONNX, or one with RoiAlign in it")
    p.add_argument(
        "-o", "--output", type=values.output, default=Path("model.onnx"), metavar="F", help="(default: %(default)s)"
    )
    p.add_argument(
        "--tail",
        choices=["native", "plugin", "aot"],
        default="native",
        help="what blends the masks: standard ops, the layer of libtrt_blendmask.so, or that layer inside the engine "
        "(default: native)",
    )
    p.add_argument(
        "--top",
        choices=["sparse", "dense"],
        default="sparse",
        help="where the attention is computed: at the kept locations only, or everywhere (default: sparse)",
    )
    p.add_argument(
        "--nms",
        choices=["matrix", "op"],
        default="matrix",
        help="fixed shapes throughout, or ONNX's NonMaxSuppression; the same result (default: matrix)",
    )
    p.add_argument(
        "--max-detections", type=values.positive, metavar="D", help="detection slots (default: the config's, 100)"
    )
    p.add_argument(
        "--score-threshold",
        type=values.fraction,
        metavar="SCORE",
        help="of class x centerness, before the square root (default: the config's, 0.05)",
    )
    p.add_argument(
        "--nms-threshold", type=float, metavar="IOU", help="0 or less: no suppression (default: the config's, 0.6)"
    )
    p.add_argument(
        "--input",
        choices=["uint8", "float32"],
        default="uint8",
        help="uint8 BGR frames, or normalised float32 planes (default: uint8)",
    )
    p.add_argument(
        "--mask-dtype",
        choices=["float32", "float16", "uint8"],
        default="float32",
        help="of the masks (default: float32)",
    )
    p.add_argument(
        "--split", action="store_true", help="also write the two halves: MODEL.trunk.onnx and MODEL.tail.onnx"
    )
    config_options.add(p, "of a file that carries no metadata of ours")
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.surgery import SurgeryOptions, operate

    options = SurgeryOptions(
        tail=args.tail,
        top=args.top,
        nms=args.nms,
        max_detections=args.max_detections,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        input_dtype=args.input,
        mask_dtype=args.mask_dtype,
        split=args.split,
        config=config_options.read(args, console),
    )
    report = operate(args.raw, args.output, options)
    for line in report.lines():
        console.say(line)
    typed = shlex.quote(str(report.output))
    if report.spec is not None and report.spec.tail == "native":
        console.say(f"Next: trt-blendmask predict {typed} IMAGE -o predictions")
    elif report.spec is not None:  # TensorRT's alone
        console.say(f"Next: trt-blendmask build {typed}")
