"""The verb `compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trt_blendmask.cli import device, values
from trt_blendmask.cli.parser import AddVerb, add_score
from trt_blendmask.console import Console
from trt_blendmask.defaults import COUNTED_SCORE
from trt_blendmask.layout import counted, printable


def add(verb: AddVerb) -> None:
    p = verb(
        "compare",
        "how far two models agree on pictures, without labels; write a page and JSON",
        "  trt-blendmask compare model.onnx model.int8.onnx --images frames\n"
        "  trt-blendmask compare model.onnx model.engine --images belt.mp4 -n 200 --fail-under f1=0.97,mask_iou=0.97",
    )
    p.add_argument("reference", type=Path, metavar="A", help="deployable ONNX, or an engine: the reference")
    p.add_argument("other", type=Path, metavar="B", help="likewise: what is compared with it")
    p.add_argument(
        "--images",
        required=True,
        metavar="DIR|LIST|VIDEO",
        help="folder of pictures, text file with one path per line, video file, or synthetic:conveyor",
    )
    p.add_argument("-n", type=values.positive, default=200, metavar="N", help="pictures at most (default: %(default)s)")
    p.add_argument(
        "-o",
        "--output",
        type=values.output,
        default=Path("compare.html"),
        metavar="F.html",
        help="the page; also F.json (default: %(default)s)",
    )
    add_score(p, COUNTED_SCORE)
    p.add_argument(
        "--fail-under",
        type=values.bounds,
        default={},
        metavar="NAME=X,...",
        help="end with 65 below a bound on f1, box_iou, mask_iou or boundary_f, as f1=0.97,mask_iou=0.97",
    )
    device.add_options(p)
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.compare import compare, require

    report = compare(
        args.reference,
        args.other,
        args.images,
        args.output,
        args.n,
        args.score,
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
    require(report, args.fail_under)
