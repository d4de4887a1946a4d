"""The program: `trt-blendmask`, and `python -m trt_blendmask`."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from trt_blendmask.errors import STOPPED


def entry() -> NoReturn:
    """Run the command and end the process with its code, whenever Ctrl-C comes: amid imports, or when all is done.

    All files are final by then, so nothing waits for Python to be taken down: a library may hang in that, FFmpeg or a
    driver that still works would crash, and a Ctrl-C would make a failure (-2) of a finished job.
    """
    code = STOPPED
    try:
        from trt_blendmask.cli import flush_output, main

        code = main()
        flush_output()
    except KeyboardInterrupt:
        if code == STOPPED and sys.stderr is not None:
            with suppress(OSError):  # who read it has stopped, too
                print("error[130]: Stopped by Ctrl-C.", file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    entry()
