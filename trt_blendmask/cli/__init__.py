"""The command `trt-blendmask`: one verb per file, no logic of its own, nothing heavy imported before it is needed."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from trt_blendmask.cli import (
    build,
    calibrate,
    compare,
    demo,
    doctor,
    eval,
    export,
    inspect,
    predict,
    profile,
    quantize,
    run,
    surgery,
    zoo,
)
from trt_blendmask.cli.parser import empty_parser
from trt_blendmask.console import Console, hold_standard_files, only_our_words
from trt_blendmask.errors import STOPPED, OutputError, TrtBlendMaskError
from trt_blendmask.interrupts import clean_stops

# In the order of the pipeline.
VERBS = (export, surgery, calibrate, quantize, build, predict, run, profile, compare, eval, inspect, doctor, demo, zoo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; `argv` is without the program's name."""
    hold_standard_files()
    words = list(sys.argv[1:] if argv is None else argv)
    args = make_parser().parse_args(words)
    args.words = words
    console = Console(-1 if args.quiet else args.verbose)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what goes wrong is said once, by us
    try:
        with clean_stops(), contextlib.nullcontext() if args.debug else only_our_words():
            args.verb(args, console)
        return 0
    except TrtBlendMaskError as error:
        if args.debug:
            raise
        console.error(error.exit_code, str(error))
        return error.exit_code
    except KeyboardInterrupt as stop:
        console.error(STOPPED, str(stop) or "Stopped by Ctrl-C; finished files were kept, unfinished ones removed.")
        return STOPPED
    except BrokenPipeError:
        flush_output()  # the reader went away: nobody to tell
        return OutputError.exit_code
    except Exception as error:
        if args.debug:
            raise
        code = OutputError.exit_code if isinstance(error, OSError) else TrtBlendMaskError.exit_code
        flush_output()
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
        console.error(code, f"{fault}. Run the same command with --debug for the whole story.")
        return code


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser, add_verb = empty_parser()
    for verb in VERBS:
        verb.add(add_verb)
    return parser


def flush_output() -> None:
    """Write what standard output still holds, and forget what cannot be written: Python would try again, noisily."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
