"""Which blocks suffer from INT8, and the cheapest way back: to leave in FP16 what harms most for its price.

Each block is quantised alone and the agreement with the float model measured. Then the blocks go back to FP16 one by
one, the most harm per multiply-add first, and the agreement is measured after each: a curve from all INT8 to none.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import onnx

from trt_blendmask.calibrate.pictures import Picture
from trt_blendmask.errors import UsageError
from trt_blendmask.files import atomic_output
from trt_blendmask.quantize.agreement import FADE, SCORE, smooth_quality
from trt_blendmask.quantize.histograms import CurvePoint, curve_svg, page
from trt_blendmask.quantize.plan import Layer
from trt_blendmask.runtime.model import load
from trt_blendmask.structures import Detections

PICTURES = 16  # by default
_LEVEL = re.compile(r"\.P\d+(?=\.)")
_OPERATOR = re.compile(r"\.Conv(_\d+)?$")  # PyTorch's exporter ends names so


@dataclass(frozen=True)
class Block:
    """Layers that are INT8 or FP16 together. `macs`: of one run. `harm`: agreement lost, in points, if only these are
    INT8."""

    name: str
    layers: tuple[str, ...]
    macs: int
    harm: float = 0.0


@dataclass(frozen=True)
class Step:
    """One file on the curve: blocks left in FP16, share of the blocks' multiply-adds that is INT8, points lost."""

    kept: tuple[str, ...]
    int8_share: float
    lost: float


@dataclass(frozen=True)
class Sensitivity:
    """What `measure` found.

    Attributes:
        blocks: the most harmful for its price first. steps: from all INT8 on, one block more in FP16 each.
        chosen: index of the first step within the allowed drop; None where none was asked for.
        pictures: how many were compared.
    """

    blocks: tuple[Block, ...]
    steps: tuple[Step, ...]
    chosen: int | None
    pictures: int

    @property
    def keep_float(self) -> frozenset[str]:
        """Names of the layers that stay FP16 in the chosen step."""
        kept = self.steps[self.chosen].kept if self.chosen is not None else ()
        return frozenset(layer for block in self.blocks if block.name in kept for layer in block.layers)

    def lines(self) -> list[str]:
        """A table of the blocks and the curve beside each other."""
        width = max(len("all INT8"), *(len(block.name) for block in self.blocks))
        lines = [
            f"Agreement lost, in points of F1 x mask IoU, on {self.pictures} pictures:",
            f"{'block':{width}}{'multiply-adds':>15}{'alone':>8}   left in FP16 down to here: {'lost':>5}{'INT8':>8}",
        ]
        for i, step in enumerate(self.steps):
            block = self.blocks[i - 1]
            own = f"{block.macs / 1e6:>13,.1f} M{block.harm:8.2f}" if i else " " * 23
            mark = "  <- chosen" if i == self.chosen else ""
            lines.append(
                f"{block.name if i else 'all INT8':{width}}{own}{'':30}{step.lost:5.2f}{step.int8_share:8.1%}{mark}"
            )
        return lines

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def group_blocks(layers: Sequence[Layer], macs: dict[str, int]) -> tuple[Block, ...]:
    """Residual blocks as a whole, a tower's layer over all levels, and each other convolution for itself.

    Args:
        macs: multiply-adds by the layer's name.
    """
    members: dict[str, list[str]] = {}
    for layer in layers:
        members.setdefault(block_of(layer), []).append(layer.name)
    return tuple(Block(name, tuple(group), sum(macs[n] for n in group)) for name, group in members.items())


def block_of(layer: Layer) -> str:
    """ "backbone.res3.0.conv2" -> "backbone.res3.0", "head.P3.share_tower.0" -> "head.share_tower.0"."""
    name = _OPERATOR.sub("", _LEVEL.sub("", layer.name.strip("/").replace("/", ".")))
    inner = layer.part == "backbone" and name.count(".") >= 2
    return name.rpartition(".")[0] if inner else name


def measure(
    reference: Path,
    blocks: Sequence[Block],
    make: Callable[[frozenset[str]], onnx.ModelProto],
    pictures: Sequence[Picture],
    max_drop: float | None = None,
    on_model: Callable[[], None] = lambda: None,
) -> Sensitivity:
    """Measure every block, then the curve; at most 2 x blocks + 1 models are made and run.

    Args:
        reference: the float deployable ONNX.
        make: the quantised model that leaves the named layers float.
        max_drop: points of agreement (per cent of F1 x mask IoU) that may be lost; there the curve ends. None: all.
        on_model: called after each model.

    Raises:
        UsageError: no blocks or no pictures.
    """
    if not blocks or not pictures:
        raise UsageError("Expected layers to quantise and pictures to measure their harm on, got none.")
    expected = _detect(reference, pictures)
    names = {block.name: frozenset(block.layers) for block in blocks}

    def lost(kept: Collection[str]) -> float:
        layers = frozenset[str]().union(*(names[name] for name in kept))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(make(layers), path)
            found = _detect(path, pictures)
        on_model()
        return 100 * (1 - smooth_quality(expected, found))

    measured = [Block(b.name, b.layers, b.macs, lost(names.keys() - {b.name})) for b in blocks]
    ranked = sorted(measured, key=lambda block: block.harm / max(1, block.macs), reverse=True)
    total = max(1, sum(block.macs for block in ranked))
    steps: list[Step] = []
    for count in range(len(ranked) + 1):
        kept = tuple(block.name for block in ranked[:count])
        share = sum(block.macs for block in ranked[count:]) / total
        steps.append(Step(kept, share, lost(kept)))
        if max_drop is not None and steps[-1].lost <= max_drop:
            break
    chosen = None if max_drop is None else len(steps) - 1
    return Sensitivity(tuple(ranked), tuple(steps), chosen, len(pictures))


def write_sensitivity(found: Sensitivity, title: str, path: Path) -> list[Path]:
    """Write `path`, an HTML page with the curve, and the same as JSON beside it; returns both.

    Raises:
        OutputError: one of them cannot be written.
    """
    facts = path.with_suffix(".json")
    with atomic_output(path) as temporary:
        temporary.write_text(_page(found, title), encoding="utf-8")
    with atomic_output(facts) as temporary:
        temporary.write_text(found.to_json())
    return [path, facts]


def _page(found: Sensitivity, title: str) -> str:
    points = []
    for i, step in enumerate(found.steps):
        after = f"{found.blocks[i - 1].name} and those before it FP16" if i else "all INT8"
        label = f"{after}: {step.lost:.2f} points lost, {step.int8_share:.1%} INT8"
        points.append(CurvePoint(100 * step.int8_share, step.lost, label, i == found.chosen))
    curve = curve_svg(points, "multiply-adds in INT8, per cent", "agreement lost, points")
    rows = "".join(
        f"<tr><td>{escape(b.name)}</td><td>{b.macs / 1e6:,.1f}</td><td>{b.harm:.2f}</td></tr>" for b in found.blocks
    )
    return page(
        title,
        f"<p>Points of F1 x mask IoU against the float model, on {found.pictures} pictures. From right to left one "
        f"block more is left in FP16, in the order of the table.</p>{curve}"
        f"<table><tr><th>block</th><th>multiply-adds, M</th><th>lost if it alone is INT8</th></tr>{rows}</table>",
    )


def _detect(path: Path, pictures: Sequence[Picture]) -> list[Detections]:
    with load(path) as model:
        return [model(picture.image).above(SCORE - FADE) for picture in pictures if picture.image is not None]
