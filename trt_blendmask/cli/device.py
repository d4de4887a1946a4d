"""Where a model runs: the options that all verbs share that run a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trt_blendmask.runtime.choice import GpuOptions


def add_options(p: argparse.ArgumentParser) -> None:
    """--device, --cuda, --trust-engine, --rebuild."""
    p.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu"],
        default="auto",
        help="auto: an engine on the GPU (without one, the ONNX it was built from on the CPU), an ONNX on the CPU "
        "(default: auto)",
    )
    p.add_argument(
        "--cuda", choices=["core", "pycuda"], default="core", help="how an engine reaches the GPU (default: core)"
    )
    p.add_argument("--trust-engine", default="", metavar="SHA256", help="open the engine of that hash without passport")
    p.add_argument("--rebuild", action="store_true", help="build an engine that does not fit this machine again")


def gpu_options(args: argparse.Namespace) -> GpuOptions:
    """What the user said of engines."""
    from trt_blendmask.runtime.choice import GpuOptions

    return GpuOptions(args.cuda, args.trust_engine, args.rebuild)
