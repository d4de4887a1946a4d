"""The verb `run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trt_blendmask.cli import device, values
from trt_blendmask.cli.heap import share_one_arena
from trt_blendmask.cli.parser import AddVerb, add_score
from trt_blendmask.console import Console
from trt_blendmask.defaults import SHOWN_SCORE
from trt_blendmask.errors import DataError, OutputError, UsageError

_PATIENCE = values.duration("100ms", "1h")


def add(verb: AddVerb) -> None:
    p = verb(
        "run",
        "find the instances in a video, a folder of pictures or what a camera sees",
        "  trt-blendmask run model.onnx belt.mp4 --save masks.mp4 --json masks.jsonl\n"
        "  trt-blendmask run model.onnx 'synthetic:conveyor?seed=7' --max-frames 250 --save masks.mp4\n"
        "  trt-blendmask run model.onnx rtsp://user:password@camera/stream --json masks.jsonl",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="deployable ONNX, or an engine")
    p.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="video file, image folder, image, camera, rtsp:// or http:// ...; several take turns; all forms and their "
        "options: docs/streaming.md",
    )
    _add_outputs(p)
    add_score(p, SHOWN_SCORE)
    p.add_argument("--max-frames", type=values.positive, metavar="N", help="stop after so many")
    p.add_argument("--every", type=values.positive, default=1, metavar="N", help="look at one frame in N (default: 1)")
    p.add_argument("--roi", type=values.region, metavar="X,Y,W,H", help="look only at this part of the frame, pixels")
    p.add_argument("--classes", type=values.names, metavar="A,B", help="keep only detections of these classes")
    p.add_argument(
        "--deadline",
        type=values.latency,
        metavar="50ms",
        help="of a live frame, from capture to results: drop frames, then limit detections, then take the fallback",
    )
    p.add_argument("--fallback", type=Path, metavar="MODEL", help="smaller model of the same classes, for --deadline")
    p.add_argument(
        "--watchdog",
        type=_PATIENCE,
        default=10.0,
        metavar="10s",
        help="what takes longer for a frame hangs (default: 10s)",
    )
    p.add_argument("--track", action="store_true", help="the same number for an object in all frames (ByteTrack)")
    p.add_argument(
        "--stale", type=_PATIENCE, default=3.0, metavar="3s", help="no picture for so long: reopen (default: 3s)"
    )
    p.add_argument("--max-retries", type=values.count, metavar="N", help="give up after so many tries (default: never)")
    p.add_argument("--no-wait", action="store_true", help="a camera that is not there at the start is an error (69)")
    device.add_options(p)
    p.set_defaults(verb=_perform)


def _add_outputs(p: argparse.ArgumentParser) -> None:
    p.add_argument("--save", type=values.output, metavar="F.mp4", help="overlay video (H.264), .mp4 or .mkv")
    p.add_argument(
        "--segment",
        type=values.duration("1s", "24h"),
        metavar="10m",
        help="a new video so often, the time in its name",
    )
    p.add_argument(
        "--keep",
        type=values.amount,
        metavar="20GB",
        help="with --segment: delete this recording's oldest videos when all take more than this",
    )
    p.add_argument("--json", type=Path, metavar="F.jsonl", help="one line per frame; - is standard output")
    p.add_argument(
        "--json-masks", choices=["rle", "polygons", "none"], default="rle", help="masks in it (default: rle)"
    )
    p.add_argument("--frames", type=values.output, metavar="DIR", help="one overlay picture per frame")
    p.add_argument("--frames-format", choices=["jpg", "png"], default="jpg", help="of these pictures (default: jpg)")
    p.add_argument("--mqtt", metavar="mqtt://HOST/TOPIC", help="one message per frame; env:NAME holds the address")
    p.add_argument("--show", action="store_true", help="in a window, where OpenCV has one; q or Esc ends the run")
    p.add_argument(
        "--on-full",
        choices=["stop-output", "exit"],
        default="stop-output",
        help="when an output fails, as on a full disk: go on without it, and end with 74, or end at once "
        "(default: stop-output)",
    )
    p.add_argument("--serve", metavar="[HOST:]PORT", help="show and control the run in a browser, at this address")
    p.add_argument(
        "--token",
        default="",
        metavar="TOKEN",
        help="with --serve: what a client must give; needed if others than this machine may look; env:NAME takes it "
        "from the environment",
    )


def _perform(args: argparse.Namespace, console: Console) -> None:
    share_one_arena()
    from trt_blendmask.runtime.events import Events
    from trt_blendmask.runtime.options import RunOptions
    from trt_blendmask.runtime.pipeline import run
    from trt_blendmask.runtime.preview import Serving
    from trt_blendmask.runtime.recording import Recording
    from trt_blendmask.runtime.recording.broker import Broker
    from trt_blendmask.runtime.sources import LiveOptions

    if args.token and not args.serve:
        raise UsageError("A token is for the preview page: add --serve 8080.")
    events = Events()
    events.subscribe(lambda event: console.note(event.text))
    report = run(
        args.model,
        args.source,
        score=args.score,
        max_frames=args.max_frames,
        progress=console.shows_progress,
        device=args.device,
        gpu=device.gpu_options(args),
        live=LiveOptions(args.stale, max_retries=args.max_retries, wait=not args.no_wait),
        events=events,
        colour_by="instance" if args.track else "class",
        recording=Recording(
            save=args.save,
            json=args.json,
            frames=args.frames,
            json_masks=args.json_masks,
            picture_format=args.frames_format,
            segment_s=args.segment,
            keep_bytes=args.keep,
            on_full=args.on_full,
            mqtt=Broker.parse(args.mqtt) if args.mqtt is not None else None,
            show=args.show,
        ),
        options=RunOptions(
            every=args.every,
            roi=args.roi,
            classes=args.classes,
            deadline_s=args.deadline,
            fallback=args.fallback,
            track=args.track,
            hung_s=args.watchdog,
        ),
        serve=Serving.parse(args.serve, args.token) if args.serve else None,
    )
    say = console.note if args.json == Path("-") else console.say
    say(report.summary())  # Ctrl-C is how a run is ended: its files are finished, so that is done, too
    if report.failures:
        raise OutputError(report.failures[0])
    if report.cut_short and not report.stopped:
        raise DataError(report.cut_short[0])
