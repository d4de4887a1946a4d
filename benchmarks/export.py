"""Time and memory of `trt-blendmask export` on a full-size network with random weights (or on yours).

python benchmarks/export.py [--preset R_101_3x] [--half] [--checkpoint F] [--json F]
"""

from __future__ import annotations

import argparse
import json
import platform
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
DLA_CHANNELS = (16, 32, 64, 128, 256, 512)
# A child's own account: what its parent is told includes the memory that it was forked from.
CHILD = """
import sys
from trt_blendmask.cli import main
assert main(sys.argv[1:]) == 0
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
VECTORS = ("weight", "bias", "running_mean", "running_var")


def published_shapes(name: str) -> Shapes:
    """Keys and shapes of a published model's state dict by the words in its name; training-only keys included."""
    shapes: Shapes = {}
    real_time, shared = name.startswith(("RT_", "DLA_")), name.startswith(("550_", "RT_"))
    if name.startswith("DLA_"):
        shapes.update(_dla34())
        channels = DLA_CHANNELS[3:]
    else:
        shapes.update(_resnet(101 if "R_101" in name else 50, "dcni3" in name))
        channels = (512, 1024, 2048)
    for level, width in zip((3, 4, 5), channels, strict=True):
        shapes.update(_conv(f"backbone.fpn_lateral{level}", 256, width, 1))
        shapes.update(_conv(f"backbone.fpn_output{level}", 256, 256, 3))
    if name.startswith("Panoptic_"):
        shapes.update(_conv("backbone.fpn_lateral2", 256, 256, 1))
        shapes.update(_conv("backbone.fpn_output2", 256, 256, 3))
        shapes.update(_conv("panoptic_module.predictor", 54, 128, 1))
    for level in (6, 7)[: 0 if real_time else 1 if shared else 2]:
        shapes.update(_conv(f"backbone.top_block.p{level}", 256, 256, 3))
    head = "proposal_generator.fcos_head"
    for tower, count in (("share", 3 if shared else 0), ("cls", 0 if shared else 4), ("bbox", 0 if shared else 4)):
        for index in range(count):
            shapes.update(_conv(f"{head}.{tower}_tower.{3 * index}", 256, 256, 3))
            norm = f"{head}.{tower}_tower.{3 * index + 1}"
            if "bn-head" in name:
                for number in range(3):
                    shapes.update(_batch_norm(f"{norm}.{number}", 256))
            else:
                shapes.update({f"{norm}.{vector}": (256,) for vector in VECTORS[:2]})
    for key, width in (("cls_logits", 1 if name.startswith("Person_") else 80), ("bbox_pred", 4), ("ctrness", 1)):
        shapes.update(_conv(f"{head}.{key}", width, 256, 3))
    shapes.update(_protonet(2 if shared else 3))
    return {**shapes, **_conv("top_layer", 4 * 14 * 14, 256, 3)}


def _conv(key: str, out: int, channels: int, kernel: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{key}.weight": (out, channels, kernel, kernel)}
    return {**weight, f"{key}.bias": (out,)} if bias else weight


def _batch_norm(key: str, channels: int) -> Shapes:
    return {**{f"{key}.{vector}": (channels,) for vector in VECTORS}, f"{key}.num_batches_tracked": ()}


def _block(key: str, norm: str, out: int, channels: int, kernel: int) -> Shapes:
    return {**_conv(key, out, channels, kernel, bias=False), **_batch_norm(norm, out)}


def _resnet(depth: int, deformable: bool) -> Shapes:
    root = "backbone.bottom_up"
    shapes = _block(f"{root}.stem.conv1", f"{root}.stem.conv1.norm", 64, 3, 7)
    channels = 64
    for stage, count in enumerate(BLOCKS[depth], start=2):
        middle, out = 64 << (stage - 2), 256 << (stage - 2)
        for index in range(count):
            key = f"{root}.res{stage}.{index}"
            form = [("conv1", middle, channels, 1), ("conv2", middle, middle, 3), ("conv3", out, middle, 1)]
            for part, width, before, kernel in form + ([("shortcut", out, channels, 1)] if index == 0 else []):
                shapes.update(_block(f"{key}.{part}", f"{key}.{part}.norm", width, before, kernel))
            if deformable and stage > 2 and index % 3 == 0:
                shapes.update(_conv(f"{key}.conv2_offset", 27, middle, 3))
            channels = out
    return shapes


def _dla34() -> Shapes:
    root = "backbone.bottom_up"
    widths = dict(enumerate(DLA_CHANNELS))
    shapes = _block(f"{root}.base_layer.0", f"{root}.base_layer.1", widths[0], 3, 7)
    shapes.update(_block(f"{root}.level0.0", f"{root}.level0.1", widths[0], widths[0], 3))
    shapes.update(_block(f"{root}.level1.0", f"{root}.level1.1", widths[1], widths[0], 3))
    for level in (2, 3, 4, 5):
        key, before, width = f"{root}.level{level}", widths[level - 1], widths[level]
        if level in (2, 5):
            shapes.update(_tree(key, before, width, 2 * width + (before if level == 5 else 0)))
        else:
            shapes.update(_block(f"{key}.project.0", f"{key}.project.1", width, before, 1))
            shapes.update(_tree(f"{key}.tree1", before, width, 2 * width))
            shapes.update(_tree(f"{key}.tree2", width, width, 3 * width + before))
    return shapes


def _tree(key: str, before: int, width: int, joined: int) -> Shapes:
    shapes = _block(f"{key}.root.conv", f"{key}.root.bn", width, joined, 1)
    if before != width:
        shapes.update(_block(f"{key}.project.0", f"{key}.project.1", width, before, 1))
    for part, channels in (("tree1", before), ("tree2", width)):
        shapes.update(_block(f"{key}.{part}.conv1", f"{key}.{part}.bn1", width, channels, 3))
        shapes.update(_block(f"{key}.{part}.conv2", f"{key}.{part}.bn2", width, width, 3))
    return shapes


def _protonet(convs: int) -> Shapes:
    shapes: Shapes = {}
    for index in range(3):
        shapes.update(_block(f"basis_module.refine.{index}.0", f"basis_module.refine.{index}.1", 128, 256, 3))
    for index in (*range(convs), convs + 1):
        shapes.update(_block(f"basis_module.tower.{index}.0", f"basis_module.tower.{index}.1", 128, 128, 3))
    shapes.update(_conv(f"basis_module.tower.{convs + 2}", 4, 128, 1))
    shapes.update(_block("basis_module.seg_head.0", "basis_module.seg_head.1", 128, 256, 3))
    return {**shapes, **_conv("basis_module.seg_head.6", 81, 128, 1)}


def random_tensors(shapes: Shapes, half: bool = False) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Weights whose layers keep the scale of what they get, so that outputs are finite."""
    rng = np.random.default_rng(0)
    kind = np.float16 if half else np.float32
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            yield key, np.array(9, np.int64)
        elif len(shape) == 4:
            scale = (1 / max(1, int(np.prod(shape[1:])))) ** 0.5
            yield key, (rng.standard_normal(shape, np.float32) * scale).astype(kind)
        else:
            low, high = (0.5, 1.5) if key.endswith(("running_var", ".weight")) else (-0.1, 0.1)
            yield key, rng.uniform(low, high, shape).astype(kind)


def write_checkpoint(path: Path, shapes: Shapes, half: bool = False) -> None:
    """A .safetensors of random weights, written tensor by tensor."""
    kinds = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
    header: dict[str, Any] = {}
    end = 0
    data = path.with_suffix(".data")
    with data.open("wb") as stream:
        for key, array in random_tensors(shapes, half):
            place = [end, end + array.nbytes]
            header[key] = {"dtype": kinds[array.dtype], "shape": list(array.shape), "data_offsets": place}
            end = place[1]
            stream.write(array.tobytes())
    text = json.dumps(header).encode()
    with path.open("wb") as stream, data.open("rb") as numbers:
        stream.write(struct.pack("<Q", len(text)) + text)
        while block := numbers.read(1 << 20):
            stream.write(block)
    data.unlink()


def measure(checkpoint: Path, preset: str, output: Path) -> dict[str, float]:
    """Run the command in a process of its own; seconds and bytes."""
    words = ["-q", "export", str(checkpoint), "--preset", preset, "-o", str(output)]
    began = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", CHILD, *words], stdout=subprocess.PIPE, text=True, check=True)
    return {
        "seconds": time.perf_counter() - began,
        "peak_rss": 1024 * int(found.stdout),
        "checkpoint_bytes": checkpoint.stat().st_size,
        "onnx_bytes": output.stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="R_101_3x")
    parser.add_argument("--half", action="store_true", help="float16 weights")
    parser.add_argument("--checkpoint", type=Path, metavar="F", help="instead of random weights")
    parser.add_argument("--json", type=Path, metavar="F")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or Path(folder) / "random.safetensors"
        if args.checkpoint is None:
            write_checkpoint(checkpoint, published_shapes(args.preset), args.half)
        found = measure(checkpoint, args.preset, Path(folder) / "raw.onnx")
    ratio = found["peak_rss"] / found["checkpoint_bytes"]
    mb = {key: found[key] / 1e6 for key in ("checkpoint_bytes", "peak_rss", "onnx_bytes")}
    print(f"{args.preset}: checkpoint {mb['checkpoint_bytes']:.0f} MB, ONNX {mb['onnx_bytes']:.0f} MB")
    print(f"{found['seconds']:.1f} s, peak {mb['peak_rss']:.0f} MB = {ratio:.2f} x the checkpoint (at most 2.5)")
    if args.json:
        machine = f"{platform.machine()}, {platform.system()}"
        args.json.write_text(json.dumps({"preset": args.preset, "machine": machine, "ratio": ratio, **found}, indent=1))


if __name__ == "__main__":
    main()
