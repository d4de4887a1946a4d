"""The verb `zoo`."""

from __future__ import annotations

import argparse
import shlex

from trt_blendmask.cli import values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "zoo",
        "list AdelaiDet's published models, or fetch one",
        "  trt-blendmask zoo\n"
        "  trt-blendmask zoo pull 550_R_50_3x -o weights/\n"
        "  trt-blendmask zoo pull R_50_3x --mirror /mnt/models",
    )
    p.add_argument("action", nargs="?", choices=["list", "pull"], default="list", help="(default: list)")
    p.add_argument("name", nargs="?", metavar="NAME", help="the model to pull")
    p.add_argument("-o", "--output", type=values.output, metavar="DIR|F", help="(default: NAME.pth, here)")
    p.add_argument("--mirror", metavar="URL|DIR", help="instead of https://huggingface.co: another server, or a folder")
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.errors import UsageError
    from trt_blendmask.zoo.fetch import pull
    from trt_blendmask.zoo.models import LICENCE, table
    from trt_blendmask.zoo.progress import DownloadBar

    if args.action == "list":
        for line in table():
            console.say(line)
        return
    if args.name is None:
        raise UsageError("Say which model to pull. Type: trt-blendmask zoo")
    console.say(LICENCE)
    with DownloadBar(console.shows_progress) as bar:
        report = pull(args.name, args.output, args.mirror, bar.update)
    console.say(report.summary())
    file = shlex.quote(str(report.file))
    console.say(f"Next: trt-blendmask export {file} --preset {report.name} -o raw.onnx")
