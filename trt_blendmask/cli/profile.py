"""The verb `profile`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from trt_blendmask.cli import device, values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console
from trt_blendmask.defaults import PERCENTILES
from trt_blendmask.errors import UsageError
from trt_blendmask.layout import printable


def add(verb: AddVerb) -> None:
    p = verb(
        "profile",
        "how fast models are here, side by side, and where the time goes; write a page and JSON",
        "  trt-blendmask profile model.onnx\n"
        "  trt-blendmask profile model.onnx model.int8.onnx --images frames --per-layer --json profile.json\n"
        "  trt-blendmask profile --from-trtexec times.json profile.json layers.json\n"
        "  trt-blendmask profile --diff before.json after.json",
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("models", type=Path, nargs="*", default=[], metavar="MODEL", help="deployable ONNX, or an engine")
    what.add_argument(
        "--from-trtexec",
        type=Path,
        nargs="+",
        metavar="F.json",
        help="what trtexec --exportTimes, --exportProfile and --exportLayerInfo wrote, in any order",
    )
    what.add_argument(
        "--diff", type=Path, nargs=2, metavar=("A.json", "B.json"), help="what changed between two profiles, and why"
    )
    _add_measuring(p)
    p.add_argument(
        "-o",
        "--output",
        type=values.output,
        default=Path("profile.html"),
        metavar="F.html",
        help="the page (default: %(default)s)",
    )
    p.add_argument("--json", type=values.output, metavar="F.json", help="the same for programs, and for --diff")
    p.add_argument(
        "--trtexec-json", type=values.output, metavar="DIR", help="the same as files of trtexec, a folder each model"
    )
    p.add_argument(
        "--percentiles",
        type=values.percentiles,
        default=PERCENTILES,
        metavar="P,...",
        help="of times (default: 50,90,95,99)",
    )
    p.set_defaults(verb=_perform)


def _add_measuring(p: argparse.ArgumentParser) -> None:
    where = p.add_mutually_exclusive_group()
    where.add_argument(
        "--source", default="", metavar="SOURCE", help="frames of a video, camera or address, as `run` takes"
    )
    where.add_argument("--images", default="", metavar="DIR|LIST|VIDEO", help="pictures, evenly spread over all")
    where.add_argument("--random", action="store_true", help="noise: NMS then takes another time than on real pictures")
    p.add_argument(
        "--duration",
        type=values.duration("10ms", "1h"),
        default=3.0,
        metavar="3s",
        help="of each model, up to ten times as long while times scatter (default: 3s)",
    )
    p.add_argument(
        "--warmup",
        type=values.duration("0s", "1h"),
        default=0.5,
        metavar="500ms",
        help="before that (default: 500ms)",
    )
    p.add_argument("--per-layer", action="store_true", help="time each layer, too, in runs of their own")
    p.add_argument("--no-pipeline", action="store_true", help="leave out the way from the source into a video")
    p.add_argument("--force", action="store_true", help="time a model that finds other things than the first, too")
    device.add_options(p)


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.files import check_outputs, check_writable
    from trt_blendmask.runtime.choice import model_files

    models = [file for model in args.models for file in model_files(model)]
    pictures = [text for text in (args.images, args.source) if text]
    inputs = [*models, *(args.from_trtexec or ()), *(args.diff or ()), *pictures]
    outputs = [path for path in (args.output, args.json) if path is not None]
    _refuse_unused(args)
    check_outputs(outputs, inputs)
    folders = [args.trtexec_json / "times.json"] if args.trtexec_json else []
    for path in (*outputs, *folders):  # whether it can be written is better known before than after the work
        check_writable(path)
    if args.diff:
        _diff(args, console)
    elif args.from_trtexec:
        _from_trtexec(args, console)
    else:
        _profile(args, console)


def _refuse_unused(args: argparse.Namespace) -> None:
    """What was measured is not measured again: what asks for it would be passed over."""
    instead = "--diff" if args.diff else "--from-trtexec" if args.from_trtexec else ""
    unused = {
        "--source": args.source,
        "--images": args.images,
        "--random": args.random,
        "--per-layer": args.per_layer,
        "--force": args.force,
        "--trtexec-json": args.diff and args.trtexec_json,
    }
    given = next((option for option, value in unused.items() if value), "") if instead else ""
    if given:
        raise UsageError(f"Expected {instead} without {given}, as nothing is measured: leave {given} out.")


def _profile(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.profiler.bar import ProfileBar
    from trt_blendmask.profiler.measure import profile, require
    from trt_blendmask.profiler.steps import ProfileOptions
    from trt_blendmask.profiler.terminal import lines
    from trt_blendmask.profiler.write import write

    options = ProfileOptions(
        source=args.source,
        images=args.images,
        random=args.random,
        duration=args.duration,
        warmup=args.warmup,
        percentiles=args.percentiles,
        per_layer=args.per_layer,
        pipeline=not args.no_pipeline,
        force=args.force,
        device=args.device,
        gpu=device.gpu_options(args),
    )
    with ProfileBar(console.shows_progress) as bar:
        report = profile(args.models, options, _command(args), bar.update)
    files = write(report, args.output, args.json, args.trtexec_json)
    _say(lines(report), files, console)
    if report.stopped:
        raise KeyboardInterrupt(f"Stopped by Ctrl-C; {args.output} is of what was measured until then.")
    require(report)


def _from_trtexec(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.profiler.measure import report_of_trtexec
    from trt_blendmask.profiler.terminal import lines
    from trt_blendmask.profiler.write import write

    report = report_of_trtexec(args.from_trtexec, args.percentiles, _command(args))
    files = write(report, args.output, args.json, args.trtexec_json)
    _say(lines(report), files, console)


def _diff(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.profiler.diff import diff, sentences
    from trt_blendmask.profiler.report import read_report
    from trt_blendmask.profiler.write import write_diff

    found = diff(*map(read_report, args.diff))
    files = write_diff(found, args.output, args.json)
    _say(sentences(found), files, console)


def _say(lines: Sequence[str], files: Sequence[Path], console: Console) -> None:
    for line in [*lines, f"Wrote {' and '.join(map(str, files))}"]:
        console.say(printable(line))


def _command(args: argparse.Namespace) -> str:
    """As typed, without the passwords that may be in the source."""
    from trt_blendmask.runtime.sources.grammar import parse

    words, source = args.words, args.source
    if source:
        shown = parse(source).name
        # `--source` may be cut to `--sou`.
        words = [
            word.removesuffix(source) + shown if word == source or word.endswith(f"={source}") else word
            for word in words
        ]
    return shlex.join(["trt-blendmask", *words])
