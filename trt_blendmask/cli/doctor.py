"""The verb `doctor`."""

from __future__ import annotations

import argparse
import json

from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "doctor",
        "tell what this machine has, what will not work on it, and how to mend that",
        "  trt-blendmask doctor\n  trt-blendmask doctor --json",
    )
    p.add_argument("--json", action="store_true", help="as JSON, whose keys stay")
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.doctor import examine

    report = examine()
    for line in [json.dumps(report.as_dict(), indent=1)] if args.json else report.lines(console.width):
        console.say(line)
