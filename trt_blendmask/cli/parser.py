"""The flags that verbs share, and the parser the verbs are hung into."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from trt_blendmask import __version__
from trt_blendmask.cli import values
from trt_blendmask.console import Console
from trt_blendmask.errors import UsageError

AddVerb = Callable[[str, str, str], argparse.ArgumentParser]

EXIT_CODES = """exit codes:
  0 done            2 usage            65 bad data         66 no such input
  69 source unavailable   70 internal fault   74 input/output error   77 not trusted
  130 stopped by Ctrl-C, SIGTERM or SIGHUP (a run so stopped finishes its files: 0)"""


class _Parser(argparse.ArgumentParser):
    """Says what it does not understand in one line, as any other error is said."""

    def error(self, message: str) -> NoReturn:
        Console().error(UsageError.exit_code, f"{message.rstrip('.')}. For the options type: {self.prog} --help")
        raise SystemExit(UsageError.exit_code)


def _common() -> _Parser:
    """The flags every verb takes, before or after its name; new objects each time: `set_defaults` writes into them."""
    common = _Parser(add_help=False)
    noise = common.add_mutually_exclusive_group()
    hidden = argparse.SUPPRESS  # so that a verb's absent flag does not overwrite one given before the verb
    noise.add_argument("-v", "--verbose", action="count", default=hidden, help="say more")
    noise.add_argument("-q", "--quiet", action="store_true", default=hidden, help="say nothing but errors")
    common.add_argument("--debug", action="store_true", default=hidden, help="show the traceback of an error")
    return common


def empty_parser() -> tuple[argparse.ArgumentParser, AddVerb]:
    """The parser, and the function that hangs a verb into it: name, what it does, examples."""
    parser = _Parser(
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

    return parser, verb


def add_score(p: argparse.ArgumentParser, default: float) -> None:
    p.add_argument(
        "--score",
        type=values.fraction,
        default=default,
        metavar="SCORE",
        help="leave out what scores less (default: %(default)s)",
    )
