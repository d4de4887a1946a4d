"""Two profiles of different days, machines or files: what changed, by part and by layer, and the likely cause.

The runs were not taken in turn, so a difference counts only beyond the noise of both together; that the machine itself
was in another state is among the causes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from trt_blendmask.profiler.diff_layers import (
    LEAST_OF_LAYERS,
    LayerChange,
    PartChange,
    changes_of,
    is_even,
    parts_of,
    reformats_of,
)
from trt_blendmask.profiler.differences import LEAST, noise_of
from trt_blendmask.profiler.report import Environment, ModelProfile, ProfileReport

_METRICS = ("gpu", "network", "host")  # the first that both have
_TOLD = 20  # layers for a terminal
_CLOCK = 0.03  # a smaller relative change of a clock explains nothing


@dataclass(frozen=True)
class ModelDiff:
    """One model in both profiles.

    Attributes:
        one, other: labels. metric: a key of `ModelProfile.times`, "layers" where only those were timed, "" nothing.
        one_ms, other_ms: medians. ratio: other / one, from `low` to `high`; None where either was not timed.
        noise: relative difference that both runs together would give without any.
        judged: whether there were rounds enough to know. differs: beyond it.
        causes: likely ones, in words; notes: in what else the two are unlike.
        parts, layers: what changed there; none of them where either has no layers.
    """

    one: str
    other: str
    metric: str
    one_ms: float
    other_ms: float
    ratio: float | None
    low: float
    high: float
    noise: float
    judged: bool
    differs: bool
    causes: tuple[str, ...]
    notes: tuple[str, ...]
    parts: tuple[PartChange, ...]
    layers: tuple[LayerChange, ...]

    def sentence(self) -> str:
        """What changed, in a line."""
        name = self.one if self.one == self.other else f"{self.one} -> {self.other}"
        if self.ratio is None:
            return f"{name}: not timed in both"
        words = f"{name}: {self.metric} {self.one_ms:.3f} -> {self.other_ms:.3f} ms"
        if not self.judged:
            return f"{words}: too few rounds to tell a difference from noise"
        if not self.differs:
            return f"{words}: no difference beyond the noise of {self.noise:.1%}"
        return f"{words}: {self.ratio:.3f} times as long ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Diff:
    """`one`, `other`: when and by which command they were made. environment: (what, before, after) where it changed.

    Attributes:
        missing: models that only one of them has, in words.
    """

    one: str
    other: str
    models: tuple[ModelDiff, ...]
    environment: tuple[tuple[str, str, str], ...]
    missing: tuple[str, ...]


def diff(one: ProfileReport, other: ProfileReport) -> Diff:
    """What changed from `one` to `other`; their models are paired by label, by content, or as the only ones."""
    environment = environment_changes(one.environment, other.environment)
    pairs = _pairs(one.models, other.models)
    left = [("before", model) for model in one.models if all(model is not a for a, _ in pairs)]
    left += [("after", model) for model in other.models if all(model is not b for _, b in pairs)]
    return Diff(
        f"{one.when}, {one.command}",
        f"{other.when}, {other.command}",
        tuple(_model(a, b, environment) for a, b in pairs),
        environment,
        tuple(f"{model.label} is only in the profile {when}" for when, model in left),
    )


def sentences(found: Diff) -> list[str]:
    """The result for a terminal: a line for each model, each part that changed, each layer that matters."""
    lines = []
    for model in found.models:
        lines.append(model.sentence())
        lines += [f"  likely: {cause}" for cause in model.causes]
        lines += [f"  mind: {note}" for note in model.notes]
        lines += [f"  {part.sentence()}" for part in model.parts if part.differs]
        told = [layer for layer in model.layers if layer.differs]
        lines += [f"    {layer.sentence()}" for layer in told[:_TOLD]]
        lines += [f"    and {len(told) - _TOLD} more layers"] if len(told) > _TOLD else []
    lines += [f"{words}." for words in found.missing]
    return lines + [f"{what}: {before} -> {after}" for what, before, after in found.environment]


def environment_changes(one: Environment, other: Environment) -> tuple[tuple[str, str, str], ...]:
    """(what, before, after); what is never twice the same is not compared: loads, the clocks of a moment, and of the
    memory less than a hundredth. The clocks of each model's own turns are among the causes."""
    rows = []
    for field in fields(Environment):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("load", "missing", "clocks") or before == after:
            continue
        if field.name == "memory_bytes":
            before, after = (f"{value / 2**30:.1f} GiB" if value else "" for value in (before, after))
            if before == after:
                continue
        if isinstance(before, dict):
            names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            rows += [(name, before.get(name, "-"), after.get(name, "-")) for name in names]
        elif isinstance(before, tuple):
            rows.append((field.name, ", ".join(before) or "-", ", ".join(after) or "-"))
        else:
            rows.append((field.name, str(before) or "-", str(after) or "-"))
    return tuple(rows)


def _pairs(ours: Sequence[ModelProfile], theirs: Sequence[ModelProfile]) -> list[tuple[ModelProfile, ModelProfile]]:
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    pairs: list[tuple[ModelProfile, ModelProfile]] = []
    for key in ("label", "sha256"):
        for a in ours:
            free = [b for b in theirs if all(b is not taken for _, taken in pairs)]
            same = next((b for b in free if getattr(a, key) == getattr(b, key) != ""), None)
            if same is not None and all(a is not taken for taken, _ in pairs):
                pairs.append((a, same))
    return pairs


def _model(one: ModelProfile, other: ModelProfile, environment: tuple[tuple[str, str, str], ...]) -> ModelDiff:
    metric = next((key for key in _METRICS if one.times.get(key) and other.times.get(key)), "")
    noises = [noise_of(model, metric) if metric else None for model in (one, other)]
    judged, noise = None not in noises, max(LEAST, sum(value or 0.0 for value in noises))
    if metric or not (one.layers and other.layers):
        one_ms, other_ms = _median(one, metric), _median(other, metric)
    else:
        metric, one_ms, other_ms = "layers", one.layers.sum_ms, other.layers.sum_ms
        judged, noise = True, LEAST_OF_LAYERS
    ratio = other_ms / one_ms if one_ms > 0 < other_ms else None
    layers: tuple[LayerChange, ...] = ()
    parts: tuple[PartChange, ...] = ()
    if one.layers and other.layers:
        layers = changes_of(one.layers, other.layers, noise)
        parts = parts_of(layers, (reformats_of(one.layers), reformats_of(other.layers)), noise)
    differs = judged and ratio is not None and abs(math.log(ratio)) > math.log1p(noise)
    return ModelDiff(
        one=one.label,
        other=other.label,
        metric=metric,
        one_ms=one_ms,
        other_ms=other_ms,
        ratio=ratio,
        low=ratio / (1 + noise) if ratio else 0.0,
        high=ratio * (1 + noise) if ratio else 0.0,
        noise=noise,
        judged=judged,
        differs=differs,
        causes=_causes(one, other, layers, parts, environment) if differs or any(p.differs for p in parts) else (),
        notes=_notes(one, other),
        parts=parts,
        layers=layers,
    )


def _median(model: ModelProfile, metric: str) -> float:
    seen = model.distribution(metric)
    return seen.median_ms if seen else 0.0


def _notes(one: ModelProfile, other: ModelProfile) -> tuple[str, ...]:
    """In what the two are unlike, so that a reader does not compare what cannot be."""
    rows = [
        ("another file", one.sha256[:12], other.sha256[:12]),
        ("another precision", one.precision, other.precision),
        ("another input size", "x".join(map(str, one.input_hw)), "x".join(map(str, other.input_hw))),
        ("run by another library or in another way", one.how, other.how),
        (
            "layers timed by another tool",
            one.layers.tool if one.layers else "",
            other.layers.tool if other.layers else "",
        ),
        ("other work", *(f"{model.macs / 1e9:.2f} GMAC" if model.macs else "" for model in (one, other))),
    ]
    notes = [f"{what}: {before} -> {after}" for what, before, after in rows if before != after and before and after]
    notes += [f"not timed {when}: {m.error}" for when, m in (("before", one), ("after", other)) if m.error]
    return tuple(notes)


def _causes(
    one: ModelProfile,
    other: ModelProfile,
    layers: Sequence[LayerChange],
    parts: Sequence[PartChange],
    environment: tuple[tuple[str, str, str], ...],
) -> tuple[str, ...]:
    causes = [f"{part.part}: {cause}" for part in parts if part.differs for cause in part.causes]
    for name, span in one.conditions.items():
        after = other.conditions.get(name)
        if name.endswith("MHz") and after and span.mean > 0 and abs(after.mean / span.mean - 1) > _CLOCK:
            causes.append(f"clocks: {name} {span.mean:.0f} -> {after.mean:.0f}")
    if is_even(layers):
        causes.append("all layers changed by about the same factor: clocks, other processes or another machine")
    return (*causes, *(f"{what}: {before} -> {after}" for what, before, after in environment))
