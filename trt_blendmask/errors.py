"""Every error a user can cause, each with the exit code the command line ends with.

A message is one sentence that says what was expected, what came, and the next command to type. Exit codes follow
BSD's sysexits, apart from 2 for usage, which is what argparse and the shells use.
"""

from __future__ import annotations

STOPPED = 130  # exit code of a command that Ctrl-C has ended; shells make the same of SIGINT


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line without its full stop; its kind where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__).rstrip(".")


class TrtBlendMaskError(Exception):
    """Base of all errors raised on purpose; on its own it means an internal fault (exit 70)."""

    exit_code = 70


class UsageError(TrtBlendMaskError):
    """Options that do not fit together or are out of range."""

    exit_code = 2


class DataError(TrtBlendMaskError):
    """A file that exists but does not hold what it should: truncated, of another kind, inconsistent."""

    exit_code = 65


class InputMissingError(TrtBlendMaskError):
    """A named input file or folder that does not exist or cannot be read."""

    exit_code = 66


class SourceUnavailableError(TrtBlendMaskError):
    """A camera, video or other source that cannot be opened or decoded now, or a device that is not there."""

    exit_code = 69


class OutputError(TrtBlendMaskError):
    """An output that could not be written."""

    exit_code = 74


class OutputNameError(OutputError):
    """An output whose name can never do, as that of a folder where a file should be: a slip, not a disk that fails."""


class NotTrustedError(TrtBlendMaskError):
    """A file that asks for something we never do, such as executing code from a checkpoint."""

    exit_code = 77
