"""The verb `inspect`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "inspect",
        "tell what is in a file: an ONNX model, an engine or its passport, a calibration table, a checkpoint",
        "  trt-blendmask inspect model.int8.onnx\n  trt-blendmask inspect model.engine --json",
    )
    p.add_argument("file", type=Path, metavar="F", help="any of these; nothing in it is executed")
    p.add_argument("--json", action="store_true", help="as JSON, whose keys stay")
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.inspect import inspect

    found = inspect(args.file)
    for line in [json.dumps(found.as_dict(), indent=1)] if args.json else found.lines(console.width):
        console.say(line)
