"""The verb `quantize`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from trt_blendmask.cli import values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console
from trt_blendmask.errors import UsageError
from trt_blendmask.files import existing_file


def add(verb: AddVerb) -> None:
    p = verb(
        "quantize",
        "make the deployable ONNX FP16 or INT8, for TensorRT and TensorRT-RTX",
        "  trt-blendmask quantize model.onnx --precision fp16 --images frames -o model.fp16.onnx\n"
        "  trt-blendmask quantize model.onnx --precision int8 --from table.json --images frames --held-out others",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="float deployable ONNX")
    p.add_argument("--precision", choices=["fp16", "int8"], required=True)
    p.add_argument(
        "-o", "--output", type=values.output, metavar="F", help="(default: MODEL.fp16.onnx or MODEL.int8.onnx)"
    )
    p.add_argument(
        "--images",
        default="",
        metavar="DIR|LIST|VIDEO",
        help="fp16: pictures on which activations that float16 cannot hold are found; int8: to correct biases with",
    )
    p.add_argument("-n", type=values.positive, metavar="N", help="of --images at most (default: fp16 64, int8 16)")
    p.add_argument("--from", type=Path, dest="table", metavar="TABLE", help="int8: what 'calibrate' wrote")
    p.add_argument(
        "--held-out",
        default="",
        metavar="DIR|LIST|VIDEO",
        help="int8: pictures that calibration has not seen (64 of them); the file must find what the float model finds",
    )
    p.add_argument(
        "--for",
        dest="runtime",
        choices=["tensorrt", "onnxruntime"],
        default="tensorrt",
        help="int8: whose form; onnxruntime: fast on a CPU, not for TensorRT (default: %(default)s)",
    )
    p.add_argument(
        "--force", action="store_true", help="int8: write the file even if it finds other things than the float model"
    )
    p.add_argument(
        "--report", type=values.output, metavar="F.html", help="int8: layers, precisions, errors; also as F.json"
    )
    p.add_argument(
        "--sensitivity",
        type=values.output,
        metavar="F.html",
        help="int8: which blocks suffer, and a curve; also as F.json (needs --held-out)",
    )
    p.add_argument(
        "--max-drop",
        type=values.points,
        metavar="P",
        help="int8: leave the cheapest blocks in FP16 so that at most P points of mask AP are lost (an estimate "
        "without labels) and the file passes the comparison (needs --held-out)",
    )
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    existing_file(args.model, "a deployable ONNX", "Type: trt-blendmask quantize --help")  # "." has no suffix to change
    output = args.output or args.model.with_suffix(f".{args.precision}.onnx")
    for line in (_int8 if args.precision == "int8" else _fp16)(args, output, console.shows_progress):
        console.say(line)
    typed = shlex.quote(str(output))
    console.say(
        "Next: trt-blendmask " + (f"predict {typed} IMAGE -o predictions" if _is_native(output) else f"build {typed}")
    )


def _is_native(model: Path) -> bool:
    """Whether ONNX Runtime runs it: the other tails are TensorRT's alone."""
    import onnx

    from trt_blendmask.structures import ModelSpec
    from trt_blendmask.surgery.reading.load import metadata

    return ModelSpec.from_json(metadata(onnx.load(model))).tail not in ("plugin", "aot")


def _fp16(args: argparse.Namespace, output: Path, shows_progress: bool) -> list[str]:
    from trt_blendmask.quantize.fp16 import PICTURES, quantize_fp16

    only = {"from": args.table, "held-out": args.held_out, "force": args.force, "report": args.report}
    only |= {"sensitivity": args.sensitivity, "max-drop": args.max_drop is not None}
    only |= {"for": args.runtime != "tensorrt"}
    for name, given in only.items():
        if given:
            raise UsageError(f"--{name} is for --precision int8: leave it out, or ask for int8.")
    if args.n and not args.images:
        raise UsageError("-n is how many of --images are looked at: name them, too, or leave it out.")
    return quantize_fp16(args.model, output, args.images, args.n or PICTURES, shows_progress).lines()


def _int8(args: argparse.Namespace, output: Path, shows_progress: bool) -> list[str]:
    from trt_blendmask.quantize.bias_correction import PICTURES
    from trt_blendmask.quantize.int8_file import Int8Options, quantize_int8_file

    if args.table is None:
        model = shlex.quote(str(args.model))
        raise UsageError(
            f"INT8 needs the ranges of the activations: trt-blendmask calibrate {model} --images DIR -o table.json, "
            "then add --from table.json."
        )
    options = Int8Options(
        images=args.images,
        n=args.n or PICTURES,
        held_out=args.held_out,
        report=args.report,
        sensitivity=args.sensitivity,
        max_drop=args.max_drop,
        force=args.force,
        onnxruntime=args.runtime == "onnxruntime",
        shows_progress=shows_progress,
    )
    return quantize_int8_file(args.model, args.table, output, options).lines()
