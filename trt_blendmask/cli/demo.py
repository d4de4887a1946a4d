"""The verb `demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trt_blendmask.cli import values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "demo",
        "the whole pipeline on the bundled model and video",
        "  trt-blendmask demo\n  trt-blendmask demo -o /tmp/demo",
    )
    p.add_argument(
        "-o", "--output", type=values.output, default=Path("out"), metavar="DIR", help="(default: %(default)s)"
    )
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.demo import demo

    demo(args.output, console)
