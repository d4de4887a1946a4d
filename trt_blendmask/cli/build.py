"""The verb `build`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from trt_blendmask.cli import config_options, values
from trt_blendmask.cli.parser import AddVerb
from trt_blendmask.console import Console


def add(verb: AddVerb) -> None:
    p = verb(
        "build",
        "build the engine of a deployable ONNX with TensorRT or TensorRT-RTX; its passport lies beside it",
        "  trt-blendmask build model.onnx\n"
        "  trt-blendmask build model.int8.onnx -o belt.engine --opt-level 5 --timing-cache orin.cache\n"
        "  trt-blendmask build model.onnx --flavor rtx --compute-capability 8.6,12.0\n"
        "  trt-blendmask build model_final.pth --config R_50_3x.yaml --precision int8 --images train2017",
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="deployable ONNX, in whatever precision; or see below")
    p.add_argument("-o", "--output", type=values.output, metavar="F", help="the engine (default: MODEL.engine)")
    p.add_argument(
        "--flavor",
        choices=["auto", "tensorrt", "rtx"],
        default="auto",
        help="TensorRT builds on the GPU that it is for, TensorRT-RTX for desktop GPUs and without one (default: auto, "
        "what is there)",
    )
    p.add_argument("--tail-check", action="store_true", help="build the tail alone first, and stop if that fails")
    p.add_argument(
        "--timing-cache",
        type=Path,
        metavar="F",
        help="file of measured kernels, read and added to (default: one in your cache folder)",
    )
    p.add_argument("--seed-from", type=Path, metavar="F", help="another such file, only read")
    p.add_argument(
        "--workspace", type=values.positive, metavar="MiB", help="bound on working memory (default: TensorRT's)"
    )
    p.add_argument("--opt-level", type=int, choices=range(6), help="0 builds fast, 5 searches longest (default: 3)")
    p.add_argument("--profile", type=values.batches, metavar="MIN,OPT,MAX", help="batches, where the model's is open")
    p.add_argument(
        "--compute-capability",
        type=values.capabilities,
        default=(),
        metavar="X.Y,...",
        help="rtx: GPUs to build for, or 'current' (default: all it knows)",
    )
    p.add_argument("--version-compatible", action="store_true", help="tensorrt: also for its later versions")
    p.add_argument(
        "--exclude-lean", action="store_true", help="of --version-compatible: without the runtime that reads it"
    )
    p.add_argument(
        "--hardware-compatible",
        choices=["ampere+", "same-compute-capability"],
        default="",
        help="tensorrt: also for other GPUs",
    )
    p.add_argument("--plugin", type=Path, metavar="F.so", help="library of --tail plugin (default: the package's own)")
    p.add_argument("--embed-plugin", action="store_true", help="put that library into the engine")
    p.add_argument("--dla", type=int, metavar="N", help="tensorrt: the accelerator of a Jetson to use, where it can")
    _add_stages(p)
    p.set_defaults(verb=_perform)


def _add_stages(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group(
        "earlier stages",
        "MODEL may be a checkpoint, or an ONNX before surgery or quantize: what is missing is made first, and kept in "
        "your cache folder.",
    )
    group.add_argument("--precision", choices=["fp16", "int8"], default="", help="quantize (default: as MODEL is)")
    pictures = "DIR|LIST|VIDEO"
    group.add_argument("--images", default="", metavar=pictures, help="of what the camera sees, to quantize with")
    group.add_argument("--held-out", default="", metavar=pictures, help="int8: others, to compare it with MODEL on")
    group.add_argument("--input-size", type=values.size, metavar="HxW", help="of a checkpoint; as in export")
    config_options.add(group, "of a checkpoint, or of an ONNX that carries no metadata of ours")


def _perform(args: argparse.Namespace, console: Console) -> None:
    from trt_blendmask.engines.bar import BuildBar
    from trt_blendmask.engines.flavor import title_of
    from trt_blendmask.engines.operation import build, prepare
    from trt_blendmask.engines.options import BuildOptions
    from trt_blendmask.engines.passport import passport_path
    from trt_blendmask.engines.stages import StageOptions, make_deployable
    from trt_blendmask.files import check_outputs, existing_file

    options = BuildOptions(
        flavor=args.flavor,
        tail_check=args.tail_check,
        timing_cache=args.timing_cache,
        seed_from=args.seed_from,
        workspace_mib=args.workspace,
        opt_level=args.opt_level,
        profile=args.profile,
        compute_capability=args.compute_capability,
        version_compatible=args.version_compatible,
        exclude_lean=args.exclude_lean,
        hardware_compatible=args.hardware_compatible,
        plugin=args.plugin,
        embed_plugin=args.embed_plugin,
        dla=args.dla,
    )
    stages = StageOptions(
        precision=args.precision,
        images=args.images,
        held_out=args.held_out,
        config=config_options.read(args, console),
        input_hw=args.input_size,
    )
    what = "a checkpoint or an ONNX model"
    existing_file(args.model, what, "Type: trt-blendmask build --help")  # "." has no suffix to change
    wanted = f".{args.precision}" if args.precision else ""
    output = args.output or args.model.with_suffix(("" if args.model.stem.endswith(wanted) else wanted) + ".engine")
    given = [args.model, *(Path(each) for each in (args.config, args.images, args.held_out) if each)]
    check_outputs([output, passport_path(output)], given)
    model = make_deployable(args.model, stages, console.say, console.shows_progress, lambda: prepare(options))
    with BuildBar(console) as bar:
        info = build(model, output, options, bar.update)
    memory = f" with {bar.peak_mib} MiB" if bar.peak_mib else ""  # not of one that another process has just built
    console.say(
        f"{output}: {info.plan_bytes / 1e6:.1f} MB, built in {info.build_seconds:.1f} s{memory} by "
        f"{title_of(info.flavor, info.tensorrt_version)}; its passport is {passport_path(output)}"
    )
    console.say(f"Next: trt-blendmask predict {shlex.quote(str(output))} IMAGE -o predictions")
