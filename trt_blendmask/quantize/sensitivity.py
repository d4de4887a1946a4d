"""Which blocks suffer from INT8, and the cheapest way back: to leave in FP16 what harms most for its price.

Each block is quantised alone and the agreement with the float model measured. Then the blocks go back to FP16, the
most harm per multiply-add first, in steps that grow, and each step is measured: a curve from all INT8 to none. It is
over multiply-adds: milliseconds of an engine would need a GPU to time it on.

Two measures, as they serve two ends. Agreement (F1 x mask IoU, see `agreement.smooth_quality`) tells single blocks
apart on few pictures. The drop in mask AP (see `average_precision`) is what people bound: its points are of the size
of those that labels would show.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TypeVar

import onnx

from trt_blendmask.agreement import SCORE, Agreement, compare_detections, smooth_quality
from trt_blendmask.calibrate.pictures import Picture
from trt_blendmask.errors import DataError, UsageError
from trt_blendmask.files import atomic_output
from trt_blendmask.html_page import html_table, page, sized
from trt_blendmask.quantize.average_precision import mask_ap, mirrored, truth_of
from trt_blendmask.quantize.gate import LEAST_F1, LEAST_MASK_IOU
from trt_blendmask.quantize.histograms import CurvePoint, curve_svg
from trt_blendmask.quantize.plan import Layer
from trt_blendmask.runtime.model import load
from trt_blendmask.structures import U8, Detections

RANKED_ON = 16  # pictures; the curve is measured on all
T = TypeVar("T")
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
    """One file on the curve.

    Attributes:
        kept: blocks that stay FP16. int8_share: of the blocks' multiply-adds.
        lost: points of agreement (per cent of F1 x mask IoU). ap_lost: points of mask AP; chance can make it negative.
        f1, mask_iou: what the gate judges by.
        best: no step with more INT8 loses as little agreement: on the Pareto front.
    """

    kept: tuple[str, ...]
    int8_share: float
    lost: float
    ap_lost: float
    f1: float
    mask_iou: float
    best: bool = True

    def within(self, max_drop: float) -> bool:
        """Whether it loses no more points of mask AP, and the gate lets it pass on these pictures."""
        return self.ap_lost <= max_drop and self.f1 >= LEAST_F1 and self.mask_iou >= LEAST_MASK_IOU


@dataclass(frozen=True)
class Sensitivity:
    """What `measure` found.

    Attributes:
        blocks: the most harmful for its price first. steps: from all INT8 on, more blocks in FP16 each.
        chosen: index of the first step that is `within` the allowed drop; None where none was asked for.
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
        """The blocks, and beside them what is lost if all down to there stay FP16."""
        width = max(len("all INT8"), *(len(block.name) for block in self.blocks))
        lines = [
            f"Lost against the float model on {self.pictures} pictures, in points of F1 x mask IoU and of mask AP:",
            f"{'':{width}}{'':>13}{'alone INT8':>12}   {'FP16 down to here':>28}",
            f"{'block':{width}}{'madds':>13}{'F1 x IoU':>12}   {'F1 x IoU':>10}{'mask AP':>9}{'INT8':>9}",
        ]
        at = {len(step.kept): i for i, step in enumerate(self.steps)}
        for row in range(max(at) + 1):
            block = self.blocks[row - 1] if row else None
            own = f"{block.macs / 1e6:>11,.1f} M{block.harm:>12.2f}" if block else " " * 25
            line = f"{block.name if block else 'all INT8':{width}}{own}"
            if row in at:
                step = self.steps[at[row]]
                mark = "  <- chosen" if at[row] == self.chosen else ""
                line += f"   {step.lost:>10.2f}{step.ap_lost:>9.2f}{step.int8_share:>9.1%}{mark}"
            lines.append(line)
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


def runs(blocks: int, pictures: int) -> int:
    """How many pictures `measure` puts through a model at most."""
    return 2 * pictures + blocks * len(_spread(range(pictures))) + len(_counts(blocks)) * pictures


def measure(
    reference: Path,
    blocks: Sequence[Block],
    make: Callable[[frozenset[str]], onnx.ModelProto],
    pictures: Sequence[Picture],
    max_drop: float | None = None,
    on_picture: Callable[[], None] = lambda: None,
) -> Sensitivity:
    """Measure every block on some of the pictures, then the curve on all.

    Args:
        reference: the float deployable ONNX.
        make: the quantised model that leaves the named layers float.
        max_drop: points of mask AP that may be lost; at the first step within it, which also keeps the gate's bounds
            on these pictures, the curve ends. None: all of it.
        on_picture: called after each picture and model, see `runs`.

    Raises:
        UsageError: no blocks or no pictures. DataError: the float model finds nothing in them.
    """
    if not blocks or not pictures:
        raise UsageError("Expected layers to quantise and pictures to measure their harm on, got none.")
    judge = _Judge(reference, make, [picture.image for picture in pictures if picture.image is not None], on_picture)
    names = [block.name for block in blocks]
    layers = {block.name: block.layers for block in blocks}

    def without(kept: Iterable[str]) -> frozenset[str]:
        return frozenset(layer for name in kept for layer in layers[name])

    harms = [judge.harm(without(name for name in names if name != alone)) for alone in names]
    measured = [Block(b.name, b.layers, b.macs, harm) for b, harm in zip(blocks, harms, strict=True)]
    ranked = sorted(measured, key=lambda block: block.harm / max(1, block.macs), reverse=True)
    total = max(1, sum(block.macs for block in ranked))
    steps: list[Step] = []
    for count in _counts(len(ranked)):
        kept = tuple(block.name for block in ranked[:count])
        seen, ap_lost = judge.step(without(kept))
        share, lost = sum(block.macs for block in ranked[count:]) / total, 100 * (1 - seen.quality)
        best = all(lost < step.lost for step in steps)
        steps.append(Step(kept, share, lost, ap_lost, seen.f1, seen.mask_iou, best))
        if max_drop is not None and steps[-1].within(max_drop):
            break
    chosen = None if max_drop is None else len(steps) - 1
    return Sensitivity(tuple(ranked), tuple(steps), chosen, len(pictures))


class _Judge:
    """What the float model finds, and how far others are from it."""

    def __init__(
        self,
        reference: Path,
        make: Callable[[frozenset[str]], onnx.ModelProto],
        images: Sequence[U8],
        on_picture: Callable[[], None],
    ) -> None:
        self._make, self._images, self._on_picture = make, images, on_picture
        self._expected = self._detect(reference, images)
        if not any(len(one.above(SCORE)) for one in self._expected):
            raise DataError(
                f"Expected held-out pictures in which the float model finds something, got {len(images)} in which it "
                f"finds nothing above score {SCORE}. Give pictures of what it was trained on."
            )
        self._truth = [truth_of(one) for one in self._detect(reference, map(mirrored, images))]
        self._ap = mask_ap(self._truth, self._expected)

    def harm(self, keep_float: frozenset[str]) -> float:
        """Points of agreement lost on some of the pictures."""
        return 100 * (1 - smooth_quality(_spread(self._expected), self._found(keep_float, _spread(self._images))))

    def step(self, keep_float: frozenset[str]) -> tuple[Agreement, float]:
        """Agreement on all pictures, and points of mask AP lost."""
        found = self._found(keep_float, self._images)
        return compare_detections(self._expected, found), self._ap - mask_ap(self._truth, found)

    def _found(self, keep_float: frozenset[str], images: Sequence[U8]) -> list[Detections]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(self._make(keep_float), path)
            return self._detect(path, images)

    def _detect(self, path: Path, images: Iterable[U8]) -> list[Detections]:
        found = []
        with load(path) as model:
            for image in images:
                found.append(model(image))
                self._on_picture()
        return found


def _spread(items: Sequence[T]) -> Sequence[T]:
    """At most `RANKED_ON`, evenly."""
    return items[:: -(-len(items) // RANKED_ON)]


def _counts(blocks: int) -> list[int]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ... and all: the first blocks count most, and every step takes its time."""
    counts = [0]
    while counts[-1] < blocks:
        counts.append(min(blocks, counts[-1] + max(1, 1 << counts[-1].bit_length() >> 2)))
    return counts


def write_sensitivity(found: Sensitivity, title: str, path: Path) -> list[Path]:
    """Write `path`, an HTML page with the curves, and the same as JSON beside it; returns both.

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
    kept = {len(step.kept): step for step in found.steps}
    rows = [("all INT8", "", "", *_cells(kept[0]))]
    rows += [
        (b.name, f"{b.macs / 1e6:,.1f}", f"{b.harm:.2f}", *_cells(kept.get(i)))
        for i, b in enumerate(found.blocks, start=1)
    ]
    heads = (
        "block",
        "multiply-adds, M",
        "alone: F1 x IoU",
        "down to here: F1 x IoU",
        "mask AP",
        "F1",
        "mask IoU",
        "INT8",
    )
    chosen = f" Chosen: {_label(found.steps[found.chosen])}." if found.chosen is not None else ""
    return page(
        title,
        f"<p>Points lost against the float model on {found.pictures} pictures. From right to left more blocks stay "
        "FP16, in the order of the table; hollow points lose more agreement than one with more INT8. Mask AP is "
        "estimated without labels: the truth is what the float model finds in the mirrored pictures."
        f"{escape(chosen)}</p>"
        f"{_curve(found, 'agreement', [step.lost for step in found.steps])}"
        f"{_curve(found, 'mask AP', [max(0.0, step.ap_lost) for step in found.steps])}{html_table(heads, rows)}",
    )


def _curve(found: Sensitivity, what: str, values: Sequence[float]) -> str:
    points = [
        CurvePoint(100 * step.int8_share, value, _label(step), i == found.chosen, not step.best)
        for i, (step, value) in enumerate(zip(found.steps, values, strict=True))
    ]
    return sized(lambda width: curve_svg(points, "multiply-adds in INT8, per cent", f"{what} lost, points", width))


def _label(step: Step) -> str:
    after = f"{len(step.kept)} blocks FP16, down to {step.kept[-1]}" if step.kept else "all INT8"
    return f"{after}: {step.lost:.2f} points of agreement, {step.ap_lost:.2f} of mask AP, {step.int8_share:.1%} INT8"


def _cells(step: Step | None) -> tuple[str, ...]:
    if step is None:
        return ("",) * 5
    return (
        f"{step.lost:.2f}",
        f"{step.ap_lost:.2f}",
        f"{step.f1:.4f}",
        f"{step.mask_iou:.4f}",
        f"{step.int8_share:.1%}",
    )
