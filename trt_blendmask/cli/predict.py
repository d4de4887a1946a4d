"""The verb `predict`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trt_blendmask.cli import device, values
from trt_blendmask.cli.parser import AddVerb, add_score
from trt_blendmask.console import Console
from trt_blendmask.defaults import SHOWN_SCORE


def add(verb: AddVerb) -> None:
    p = verb(
        "predict",
        "find the instances in pictures; write overlays and COCO results",
        "  trt-blendmask predict model.onnx part.jpg -o predictions\n"
        "  trt-blendmask predict model.onnx *.png -o predictions --json results.json --score 0.5",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="deployable ONNX, or an engine")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG, ...")
    p.add_argument("-o", "--output", type=values.output, required=True, metavar="DIR", help="folder for the overlays")
    p.add_argument("--json", type=values.output, metavar="F", help="COCO results (default: DIR/results.json)")
    add_score(p, SHOWN_SCORE)
    p.add_argument(
        "--paste",
        choices=["exact", "reference"],
        default="exact",
        help="exact: geometrically right at the frame's border; reference: as AdelaiDet does (default: exact)",
    )
    device.add_options(p)
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.runtime.predict import predict

    report = predict(
        args.model,
        args.images,
        args.output,
        args.json,
        args.score,
        args.paste,
        device=args.device,
        gpu=device.gpu_options(args),
    )
    console.say(report.how)
    console.say(report.summary())
