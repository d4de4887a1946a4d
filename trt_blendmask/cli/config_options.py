"""The options that name a BlendMask configuration, for the verbs that need one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trt_blendmask.console import Console

if TYPE_CHECKING:
    from trt_blendmask.export import BlendMaskConfig


def add(parser: argparse._ActionsContainer, use: str) -> None:
    """Add --config, --preset and --opts; `use` says what the configuration is for."""
    parser.add_argument("--config", type=Path, metavar="YAML", help=f"the AdelaiDet config {use}")
    parser.add_argument("--preset", metavar="NAME", help="instead: a published model's (see `trt-blendmask zoo`)")
    parser.add_argument(
        "--opts",
        nargs="+",
        action="extend",
        default=[],
        metavar=("KEY VALUE", "KEY VALUE"),
        help="settings that win over it, as MODEL.FCOS.NUM_CLASSES 3",
    )


def read(args: argparse.Namespace, console: Console) -> BlendMaskConfig | None:
    """The configuration they name, None where none of them was used; see `read_config` for the errors."""
    from trt_blendmask.export import read_config

    if args.config is None and args.preset is None and not args.opts:
        return None
    config = read_config(args.config, args.preset, args.opts)
    for key in config.unused_options:
        console.detail(f"  no effect at inference: {key}")
    return config
