"""Layers of one profile against those of another: which are the same, what became of the others, and why."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from trt_blendmask.profiler.layers.parts import fine_part, names_in, plain_name
from trt_blendmask.profiler.report import Layer, LayerProfile

_SIGMAS = 4.0  # of thousands of layers some are beyond two or three by chance
_WORTH = 0.003  # of the whole: a smaller change of a layer or part is not worth a line
_WIDTH = {"FP64": 64, "FP32": 32, "BF16": 16, "FP16": 16, "INT8": 8, "UINT8": 8, "FP8": 8, "INT4": 4, "FP4": 4}
LEAST_OF_LAYERS = 0.05  # layers of the same file, loaded twice, differ by this much
_Group = tuple[list[Layer], list[Layer]]  # before, after


@dataclass(frozen=True)
class LayerChange:
    """Layers that do the same work before and after, or a layer that only one of them has.

    Attributes:
        names_one, names_other: as the tools give them; either may be empty. one_ms, other_ms: their sums.
        causes: what happened to them, as "back in FP32". details: more of the same, as the names of kernels.
        differs: beyond the noise; error_ms: standard error of the difference, 0 unknown.
        shared_error_ms: the same of what was taken off each layer: over layers it adds up.
    """

    part: str
    names_one: tuple[str, ...]
    names_other: tuple[str, ...]
    one_ms: float
    other_ms: float
    causes: tuple[str, ...]
    details: tuple[str, ...]
    differs: bool
    error_ms: float
    shared_error_ms: float

    @property
    def change_ms(self) -> float:
        """Above 0: slower."""
        return self.other_ms - self.one_ms

    def sentence(self) -> str:
        """ "conv1: 0.10 -> 0.30 ms: back in FP32"."""
        name = (self.names_one or self.names_other)[0]
        words = "; ".join((*self.causes, *self.details)) or "the same layer"
        return f"{name:.80}: {self.one_ms:.3f} -> {self.other_ms:.3f} ms: {words}"


@dataclass(frozen=True)
class PartChange:
    """A part of BlendMask. `reformat_one_ms`, `reformat_other_ms`: of its layers that only convert or copy."""

    part: str
    one_ms: float
    other_ms: float
    reformat_one_ms: float
    reformat_other_ms: float
    causes: tuple[str, ...]
    differs: bool

    def sentence(self) -> str:
        """ "fpn: 1.00 -> 1.40 ms (+0.40): 2 reformats added"."""
        change = f"{self.part}: {self.one_ms:.3f} -> {self.other_ms:.3f} ms ({self.other_ms - self.one_ms:+.3f})"
        return f"{change}: {', '.join(self.causes)}" if self.causes else change


def changes_of(one: LayerProfile, other: LayerProfile, noise: float) -> tuple[LayerChange, ...]:
    """All layers of both, the largest change first; `noise`: of the whole, relative."""
    worth = _WORTH * max(one.sum_ms, other.sum_ms)
    shared = one.shared_error_ms, other.shared_error_ms
    changes = [_change(group, shared, noise, worth) for group in _groups(one.layers, other.layers)]
    return tuple(sorted(changes, key=lambda change: -abs(change.change_ms)))


def parts_of(
    changes: Sequence[LayerChange], reformats: tuple[dict[str, float], dict[str, float]], noise: float
) -> tuple[PartChange, ...]:
    """The same by part, the largest change first; `reformats`: milliseconds by part, before and after."""
    by_part: defaultdict[str, list[LayerChange]] = defaultdict(list)
    for change in changes:
        by_part[change.part].append(change)
    whole = max(sum(c.one_ms for c in changes), sum(c.other_ms for c in changes), 0.0)
    parts = []
    for part, rows in by_part.items():
        one_ms, other_ms = sum(row.one_ms for row in rows), sum(row.other_ms for row in rows)
        error = math.sqrt(sum(row.error_ms**2 for row in rows)) + sum(row.shared_error_ms for row in rows)
        differs = _differs(one_ms, other_ms, error, noise, _WORTH * whole)
        causes = _part_causes(rows, other_ms - one_ms) if differs else ()
        before, after = (found.get(part, 0.0) for found in reformats)
        parts.append(PartChange(part, one_ms, other_ms, before, after, causes, differs))
    return tuple(sorted(parts, key=lambda part: -abs(part.other_ms - part.one_ms)))


def reformats_of(profile: LayerProfile) -> dict[str, float]:
    """Milliseconds of the layers that only convert or copy, by part."""
    sums: defaultdict[str, float] = defaultdict(float)
    for layer in profile.layers:
        sums[layer.part] += layer.ms * layer.is_reformat
    return dict(sums)


def is_even(changes: Sequence[LayerChange]) -> bool:
    """Whether what stayed the same changed by one factor: it is the machine then, not the model."""
    logs = [math.log(row.other_ms / row.one_ms) for row in changes if row.one_ms > 0 < row.other_ms and not row.causes]
    same = sum(row.change_ms for row in changes if not row.causes)
    if len(logs) < 5 or abs(same) < abs(sum(row.change_ms for row in changes)) / 2:
        return False
    middle = statistics.median(logs)
    return statistics.median(abs(value - middle) for value in logs) < abs(middle) / 3


def _differs(one_ms: float, other_ms: float, error: float, noise: float, worth: float) -> bool:
    relative = max(noise, LEAST_OF_LAYERS)
    return abs(other_ms - one_ms) > max(worth, _SIGMAS * error + relative * max(one_ms, other_ms))


def _groups(ours: Sequence[Layer], theirs: Sequence[Layer]) -> list[_Group]:
    """Layers that do the same work, together; those that only one has, by themselves."""
    groups: list[_Group] = []
    left_one, left_other = list(ours), list(theirs)
    keys: tuple[Callable[[Layer], Hashable], ...] = (
        lambda layer: (layer.name, layer.is_reformat),
        lambda layer: (plain_name(layer.name), layer.op, layer.part, layer.shape),
    )
    for key in keys:
        groups += _paired(left_one, left_other, key)
    groups += _overlapping(left_one, left_other)
    groups += _paired(left_one, left_other, lambda layer: (layer.part, layer.macs, layer.shape) if layer.macs else None)
    return [*groups, *(([layer], []) for layer in left_one), *(([], [layer]) for layer in left_other)]


def _paired(ours: list[Layer], theirs: list[Layer], key: Callable[[Layer], Hashable]) -> list[_Group]:
    """Pairs of the same key, in order, which are taken out of both lists; a key of None pairs nothing."""
    waiting: defaultdict[Hashable, list[Layer]] = defaultdict(list)
    for layer in reversed(theirs):
        waiting[key(layer)].append(layer)
    pairs = [([layer], [waiting[k].pop()]) for layer in ours if (k := key(layer)) is not None and waiting[k]]
    _take(ours, (one[0] for one, _ in pairs))
    _take(theirs, (other[0] for _, other in pairs))
    return pairs


def _overlapping(ours: list[Layer], theirs: list[Layer]) -> list[_Group]:
    """Layers that are made of the same nodes, fused in one and not in the other; taken out of both lists."""
    groups: list[tuple[set[str], list[Layer], list[Layer]]] = []
    for side, layers in enumerate((ours, theirs), 1):
        for layer in layers:
            nodes = set() if layer.is_reformat else {name for name in names_in(layer.name) if fine_part(name)}
            touched = [group for group in groups if group[0] & nodes]
            merged: tuple[set[str], list[Layer], list[Layer]] = (nodes, [], [])
            for group in touched:
                merged[0].update(group[0])
                merged[1].extend(group[1])
                merged[2].extend(group[2])
            merged[side].append(layer)  # type: ignore[union-attr]
            groups = [*(group for group in groups if all(group is not one for one in touched)), merged]
    found = [(one, other) for _, one, other in groups if one and other]
    _take(ours, (layer for one, _ in found for layer in one))
    _take(theirs, (layer for _, other in found for layer in other))
    return found


def _take(layers: list[Layer], taken: Iterable[Layer]) -> None:
    gone = {id(layer) for layer in taken}
    layers[:] = [layer for layer in layers if id(layer) not in gone]


def _change(group: _Group, shared_errors_ms: tuple[float, float], noise: float, worth: float) -> LayerChange:
    one, other = group
    one_ms, other_ms = sum(layer.ms for layer in one), sum(layer.ms for layer in other)
    error = math.sqrt(sum(layer.error_ms**2 for layer in (*one, *other)))
    shared = math.hypot(len(one) * shared_errors_ms[0], len(other) * shared_errors_ms[1])
    causes, details = _what_happened(one, other)
    main = max((*other, *one), key=lambda layer: (layer.macs, layer.ms))
    return LayerChange(
        part=main.part,
        names_one=tuple(layer.name for layer in one),
        names_other=tuple(layer.name for layer in other),
        one_ms=one_ms,
        other_ms=other_ms,
        causes=tuple(causes),
        details=tuple(details),
        differs=_differs(one_ms, other_ms, error + shared, noise, worth),
        error_ms=error,
        shared_error_ms=shared,
    )


def _what_happened(one: Sequence[Layer], other: Sequence[Layer]) -> tuple[list[str], list[str]]:
    """Causes that can be counted, and details of them."""
    if not one or not other:
        kind = "reformat" if (one or other)[0].is_reformat else "layer"
        return [f"{kind} {'gone' if one else 'added'}"], []
    before, after = (max(layers, key=lambda layer: (layer.macs, layer.ms)) for layers in (one, other))
    causes, details = [], []
    if before.precision != after.precision and before.precision and after.precision:
        widths = [_WIDTH.get(layer.precision, 0) for layer in (before, after)]
        causes.append(f"{'back' if widths[1] > widths[0] else 'now'} in {after.precision}")
        details.append(f"{before.precision} before")
    if len(one) != len(other):
        causes.append("fusion lost" if len(other) > len(one) else "fused")
        details.append(f"{len(one)} -> {len(other)} layers")
    work = [sum(layer.macs for layer in layers) for layers in (one, other)]
    if before.shape != after.shape or work[0] != work[1]:
        causes.append("other work")
        details.append(f"{work[0] / 1e6:.1f} -> {work[1] / 1e6:.1f} M multiply-adds, {before.shape} -> {after.shape}")
    if before.kernel != after.kernel or before.op != after.op:
        causes.append("another kernel")
        details.append(f"{before.kernel or before.op:.60} -> {after.kernel or after.op:.60}")
    return causes, details


def _part_causes(rows: Sequence[LayerChange], change: float) -> tuple[str, ...]:
    """What the layers of a part have in common, by what it adds to the change; of two causes a layer has the first."""
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for row in rows:
        cause = row.causes[0] if row.causes else ""
        sums[cause] += row.change_ms  # type: ignore[assignment]
        counts[cause] += 1
    ranked = sorted((name for name in sums if sums[name] * change > 0), key=lambda name: -abs(sums[name]))
    told = [name for name in ranked if abs(sums[name]) > abs(change) / 10]
    words = {"": f"the same layers, {'slower' if change > 0 else 'faster'}"}
    return tuple(f"{words.get(name) or f'{counts[name]} x {name}'} ({sums[name]:+.3f} ms)" for name in told)
