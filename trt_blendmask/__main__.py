"""`python -m trt_blendmask`, the same as the command `trt-blendmask`."""

import sys

from trt_blendmask.cli import main

if __name__ == "__main__":
    sys.exit(main())
