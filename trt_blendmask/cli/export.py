"""The verb `export`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from trt_blendmask.cli import config_options, values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "export",
        "read a checkpoint and write its raw-head ONNX (no torch, nothing in the file is executed)",
        "  trt-blendmask export model_final.pth --config R_50_3x.yaml -o raw.onnx\n"
        "  trt-blendmask export 550_R_50_3x.pth --preset 550_R_50_3x -o raw.onnx\n"
        "  trt-blendmask export mine.safetensors --preset R_50_3x --opts MODEL.FCOS.NUM_CLASSES 3 --input-size 576x928",
    )
    p.add_argument("checkpoint", type=Path, metavar="CKPT", help=".pth or .safetensors with AdelaiDet's key names")
    config_options.add(p, "it was trained with")
    p.add_argument(
        "-o", "--output", type=values.output, default=Path("raw.onnx"), metavar="F", help="(default: %(default)s)"
    )
    p.add_argument("--input-size", type=values.size, metavar="HxW", help="multiples of 32 (default: the config's)")
    p.add_argument("--batch", type=values.positive, default=1, metavar="N", help="images per inference (default: 1)")
    p.add_argument(
        "--deform",
        choices=("native", "op"),
        default="native",
        help="deformable convolutions as standard ops, or as DeformConv of opset 19 for ONNX Runtime only "
        "(default: native)",
    )
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.export import export_onnx

    config = config_options.read(args, console)
    report = export_onnx(args.checkpoint, config, args.output, args.input_size, args.batch, args.deform)
    for key in report.ignored_keys:
        console.detail(f"  not needed at inference: {key}")
    console.say(report.summary())
    console.say(f"Next: trt-blendmask surgery {shlex.quote(str(report.output))} -o model.onnx")
