"""The verb `run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trt_blendmask.cli import values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "run",
        "find the instances in a video, a folder of pictures or a synthetic belt",
        "  trt-blendmask run model.onnx belt.mp4 --save masks.mp4 --json masks.jsonl\n"
        "  trt-blendmask run model.onnx 'synthetic:conveyor?seed=7' --max-frames 250 --save masks.mp4",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="deployable ONNX")
    p.add_argument("source", metavar="SOURCE", help="video file, image folder, image, or synthetic:conveyor")
    p.add_argument("--save", type=Path, metavar="F.mp4", help="overlay video (H.264)")
    p.add_argument("--json", type=Path, metavar="F.jsonl", help="one line per frame")
    p.add_argument("--score", type=values.fraction, default=0.5, metavar="S", help="leave out what scores less (0.5)")
    p.add_argument("--max-frames", type=values.positive, metavar="N", help="stop after so many")
    p.set_defaults(verb=_perform)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.runtime.pipeline import run

    report = run(args.model, args.source, args.save, args.json, args.score, args.max_frames, console.shows_progress)
    console.say(report.summary())  # Ctrl-C is how a run is ended: its files are finished, so that is done, too
