"""The command `trt-blendmask`: one verb per stage, no logic of its own, nothing heavy imported before it is needed."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from trt_blendmask import __version__
from trt_blendmask.console import Console, hold_standard_files
from trt_blendmask.errors import OutputError, TrtBlendMaskError

AddVerb = Callable[[str, str, str], argparse.ArgumentParser]

EXIT_CODES = """exit codes:
  0 done            2 usage            65 bad data         66 no such input
  69 source unavailable   70 internal fault   74 input/output error   77 not trusted
  130 stopped by Ctrl-C, SIGTERM or SIGHUP (a run so stopped finishes its files: 0)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; `argv` is without the program's name."""
    hold_standard_files()
    args = _parser().parse_args(argv)
    console = Console(-1 if args.quiet else args.verbose)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what goes wrong is said once, by us
    _stop_cleanly_on_signals()
    try:
        args.verb(args, console)
        return 0
    except TrtBlendMaskError as error:
        if args.debug:
            raise
        console.error(error.exit_code, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.error(130, "Stopped by Ctrl-C; finished files were kept, unfinished ones removed.")
        return 130
    except BrokenPipeError:
        _drop_output()  # the reader went away: nobody to tell
        return OutputError.exit_code
    except Exception as error:
        if args.debug:
            raise
        code = OutputError.exit_code if isinstance(error, OSError) else TrtBlendMaskError.exit_code
        _drop_output()
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
        console.error(code, f"{fault}. Run the same command with --debug for the whole story.")
        return code


def _stop_cleanly_on_signals() -> None:
    """`kill`, a shutdown or a closed terminal end the work as Ctrl-C does: files are finished or removed."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup's and a host's stay
            signal.signal(number, signal.default_int_handler)


def _drop_output() -> None:
    """Forget what standard output still holds and cannot write, or Python would try again at its end, noisily."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _export(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.export import export_onnx

    report = export_onnx(args.checkpoint, args.config, args.output, args.input_size, args.batch)
    for key in report.ignored_keys:
        console.detail(f"  not needed at inference: {key}")
    console.say(report.summary())
    console.say(f"Next: trt-blendmask surgery {shlex.quote(str(report.output))} -o model.onnx")


def _surgery(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.surgery import SurgeryOptions, operate

    options = SurgeryOptions(
        tail=args.tail,
        top=args.top,
        max_detections=args.max_detections,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        input_dtype=args.input,
        mask_dtype=args.mask_dtype,
        config=args.config,
    )
    report = operate(args.raw, args.output, options)
    for line in report.lines():
        console.say(line)
    console.say(f"Next: trt-blendmask predict {shlex.quote(str(report.output))} IMAGE -o predictions")


def _predict(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.runtime.predict import predict

    report = predict(args.model, args.images, args.output, args.json, args.score, args.paste)
    console.say(report.summary())


def _run(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.runtime.pipeline import run

    report = run(args.model, args.source, args.save, args.json, args.score, args.max_frames, console.shows_progress)
    console.say(report.summary())  # Ctrl-C is how a run is ended: its files are finished, so that is done, too


def _demo(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.demo import demo

    demo(args.output, console)


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HxW in pixels, as 288x512, got '{text}'") from None
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(f"expected sizes above 0, got '{text}'")
    return height, width


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{text}'")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, got '{text}'")
    return value


def _common() -> argparse.ArgumentParser:
    """The flags every verb takes, before or after its name; new objects each time: `set_defaults` writes into them."""
    common = argparse.ArgumentParser(add_help=False)
    noise = common.add_mutually_exclusive_group()
    hidden = argparse.SUPPRESS  # so that a verb's absent flag does not overwrite one given before the verb
    noise.add_argument("-v", "--verbose", action="count", default=hidden, help="say more")
    noise.add_argument("-q", "--quiet", action="store_true", default=hidden, help="say nothing but errors")
    common.add_argument("--debug", action="store_true", default=hidden, help="show the traceback of an error")
    return common


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trt-blendmask",
        description="BlendMask instance segmentation, from a trained checkpoint to masks on a video.",
        epilog=EXIT_CODES,
        parents=[_common()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verbose=0, quiet=False, debug=False)
    parser.add_argument("--version", action="version", version=f"trt-blendmask {__version__}")
    verbs = parser.add_subparsers(title="verbs, in the order of the pipeline", metavar="VERB", required=True)

    def verb(name: str, does: str, examples: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            epilog=f"examples:\n{examples}\n\n{EXIT_CODES}",
            parents=[_common()],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_export(verb)
    _add_surgery(verb)
    _add_predict(verb)
    _add_run(verb)
    _add_demo(verb)
    return parser


def _add_export(verb: AddVerb) -> None:
    p = verb(
        "export",
        "read a checkpoint and write its raw-head ONNX (no torch, nothing in the file is executed)",
        "  trt-blendmask export model_final.pth --config R_50_3x.yaml -o raw.onnx\n"
        "  trt-blendmask export model.safetensors --config my.yaml --input-size 576x928",
    )
    p.add_argument("checkpoint", type=Path, metavar="CKPT", help=".pth or .safetensors with AdelaiDet's key names")
    p.add_argument(
        "--config", type=Path, required=True, metavar="YAML", help="the AdelaiDet config it was trained with"
    )
    p.add_argument("-o", "--output", type=Path, default=Path("raw.onnx"), metavar="F", help="default: %(default)s")
    p.add_argument("--input-size", type=_size, metavar="HxW", help="multiples of 32; default: from the config")
    p.add_argument("--batch", type=_positive, default=1, metavar="N", help="images per inference (default: 1)")
    p.set_defaults(verb=_export)


def _add_surgery(verb: AddVerb) -> None:
    p = verb(
        "surgery",
        "turn a raw-head ONNX (ours or AdelaiDet's) into the deployable ONNX: frames in, masks out",
        "  trt-blendmask surgery raw.onnx -o model.onnx\n"
        "  trt-blendmask surgery adelaidet.onnx --config RT_R_50.yaml --max-detections 50 --mask-dtype uint8",
    )
    p.add_argument("raw", type=Path, metavar="RAW", help="raw-head ONNX")
    p.add_argument("-o", "--output", type=Path, default=Path("model.onnx"), metavar="F", help="default: %(default)s")
    p.add_argument("--tail", choices=["native"], default="native", help="what blends the masks (default: native)")
    p.add_argument(
        "--top",
        choices=["sparse", "dense"],
        default="sparse",
        help="where the attention is computed: at the kept locations only, or everywhere (default: sparse)",
    )
    p.add_argument("--max-detections", type=_positive, metavar="D", help="detection slots (default: the config's, 100)")
    p.add_argument(
        "--score-threshold",
        type=_fraction,
        metavar="T",
        help="on class x centerness, before the square root (default: the config's, 0.05)",
    )
    p.add_argument(
        "--nms-threshold", type=float, metavar="T", help="IoU; 0 or less: no suppression (default: the config's, 0.6)"
    )
    p.add_argument(
        "--input",
        choices=["uint8", "float32"],
        default="uint8",
        help="uint8 BGR frames, or normalised float32 planes (default: uint8)",
    )
    p.add_argument("--mask-dtype", choices=["float32", "float16", "uint8"], default="float32", help="default: float32")
    p.add_argument("--config", type=Path, metavar="YAML", help="for a file that carries no metadata of ours")
    p.set_defaults(verb=_surgery)


def _add_predict(verb: AddVerb) -> None:
    p = verb(
        "predict",
        "find the instances in pictures; write overlays and COCO results",
        "  trt-blendmask predict model.onnx part.jpg -o predictions\n"
        "  trt-blendmask predict model.onnx *.png -o predictions --json results.json --score 0.5",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="deployable ONNX")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG, ...")
    p.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the overlays")
    p.add_argument("--json", type=Path, metavar="F", help="COCO results (default: DIR/results.json)")
    p.add_argument("--score", type=_fraction, default=0.5, metavar="S", help="leave out what scores less (0.5)")
    p.add_argument(
        "--paste",
        choices=["exact", "reference"],
        default="exact",
        help="exact: geometrically right at the frame's border; reference: as AdelaiDet does (default: exact)",
    )
    p.set_defaults(verb=_predict)


def _add_run(verb: AddVerb) -> None:
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
    p.add_argument("--score", type=_fraction, default=0.5, metavar="S", help="leave out what scores less (0.5)")
    p.add_argument("--max-frames", type=_positive, metavar="N", help="stop after so many")
    p.set_defaults(verb=_run)


def _add_demo(verb: AddVerb) -> None:
    p = verb(
        "demo",
        "the whole pipeline on the bundled model and video",
        "  trt-blendmask demo\n  trt-blendmask demo -o /tmp/demo",
    )
    p.add_argument("-o", "--output", type=Path, default=Path("out"), metavar="DIR", help="default: %(default)s")
    p.set_defaults(verb=_demo)
