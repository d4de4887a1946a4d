"""The verb `eval`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trt_blendmask.cli import device, values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console
from trt_blendmask.layout import counted, printable


def add(verb: AddVerb) -> None:
    p = verb(
        "eval",
        "COCO average precision and recall of one or more models on annotated pictures",
        "  trt-blendmask eval model.onnx --annotations instances_val2017.json --images val2017 --max 500\n"
        "  trt-blendmask eval model.onnx model.int8.onnx --annotations coco.json --images DIR -o eval\n"
        "  trt-blendmask eval model.onnx --annotations coco.json --images DIR --resize 800,1333 --paste reference",
    )
    p.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="deployable ONNX, or an engine")
    p.add_argument("--annotations", type=Path, required=True, metavar="F.json", help="COCO instances")
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of their pictures")
    p.add_argument("--max", type=values.positive, metavar="N", help="only the first N pictures, by id")
    p.add_argument(
        "-o", "--output", type=values.output, default=Path("eval"), metavar="DIR", help="(default: %(default)s)"
    )
    p.add_argument(
        "--resize",
        type=values.short_and_long,
        metavar="SHORT,LONG",
        help="as AdelaiDet, 800,1333: short side to 800, the long one at most 1333 (default: letterbox)",
    )
    p.add_argument(
        "--paste", choices=["exact", "reference"], default="exact", help="reference: as AdelaiDet does (default: exact)"
    )
    device.add_options(p)
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.evaluate import evaluate
    from trt_blendmask.evaluate.resize import ShortestEdge

    report = evaluate(
        args.models,
        args.annotations,
        args.images,
        args.output,
        args.max,
        ShortestEdge(*args.resize) if args.resize else None,
        args.paste,
        device=args.device,
        gpu=device.gpu_options(args),
        shows_progress=console.shows_progress,
    )
    for line in report.lines():
        console.say(printable(line))
    if report.stopped:
        raise KeyboardInterrupt(
            f"Stopped by Ctrl-C after {counted(report.pictures, 'picture')}; {args.output} is of these."
        )
