"""The verb `calibrate`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from trt_blendmask.cli import values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "calibrate",
        "measure the ranges of the activations on pictures, for 'quantize --precision int8'",
        "  trt-blendmask calibrate model.onnx --images train2017 -n 512 -o table.json\n"
        "  trt-blendmask calibrate model.onnx --images belt.mp4 --method entropy --cache calibration.cache",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="float deployable ONNX")
    p.add_argument(
        "--images",
        required=True,
        metavar="DIR|LIST|VIDEO",
        help="folder of pictures, text file with one path per line, video file, or synthetic:conveyor",
    )
    p.add_argument("-n", type=values.positive, default=512, metavar="N", help="pictures at most (default: %(default)s)")
    p.add_argument(
        "--method",
        choices=["mse", "percentile", "entropy", "minmax"],
        default="mse",
        help="least squared error, 99.999 per cent of the values, most information, or nothing clipped (default: mse)",
    )
    p.add_argument(
        "--select",
        choices=["even", "diverse"],
        help="evenly spread, or those that differ most from each other (default: diverse in a video, else even)",
    )
    p.add_argument(
        "-o", "--output", type=values.output, default=Path("table.json"), metavar="F", help="(default: %(default)s)"
    )
    p.add_argument(
        "--cache", type=values.output, metavar="F", help="also TensorRT's text form, for DeepStream and trtexec <= 10"
    )
    p.add_argument(
        "--tensorrt",
        default="10.3.0",
        metavar="V",
        help="with --cache: the TensorRT that will read it; others ignore the file (default: %(default)s)",
    )
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.calibrate import calibrate

    report = calibrate(
        args.model,
        args.images,
        args.output,
        n=args.n,
        method=args.method,
        select=args.select,
        cache=args.cache,
        tensorrt=args.tensorrt,
        shows_progress=console.shows_progress,
    )
    for line in report.lines():
        console.say(line)
    console.say(
        f"Next: trt-blendmask quantize {shlex.quote(str(args.model))} --precision int8 --from "
        f"{shlex.quote(str(report.output))}"
    )
