"""`python -m trt_blendmask`, the same as the command `trt-blendmask`."""

from trt_blendmask.cli import entry

if __name__ == "__main__":
    entry()
