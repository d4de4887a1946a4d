"""What surgery did, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_blendmask.structures import ModelSpec


@dataclass(frozen=True)
class StepOutcome:
    """One graph change: what it did in a sentence, and the nodes of the graph before and after it."""

    name: str
    sentence: str
    nodes_before: int
    nodes_after: int


@dataclass(frozen=True)
class CutTensor:
    """A tensor at which a whole graph was cut: its name in the file, its role from now on, its shape (0: open)."""

    name: str
    role: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SurgeryReport:
    """What `operate` wrote.

    Attributes:
        macs_before, macs_after: multiply-adds of one run (the whole batch) by part, see `macs.PARTS`.
        spec: None for a tail alone, which keeps the inputs and outputs of its file.
        cut: where a graph that went beyond the heads was cut.
    """

    steps: tuple[StepOutcome, ...]
    macs_before: dict[str, int]
    macs_after: dict[str, int]
    spec: ModelSpec | None
    output: Path
    size_bytes: int
    cut: tuple[CutTensor, ...] = ()

    def lines(self) -> list[str]:
        """A table of the steps and one of the multiply-adds, then the summary."""
        width = max(len(step.name) for step in self.steps)
        lines = [f"{'step':{width}}  nodes          what"]
        lines += [
            f"{step.name:{width}}  {step.nodes_before:5} -> {step.nodes_after:<5} {step.sentence}"
            for step in self.steps
        ]
        lines += self._cut_lines()
        if self.macs_before:
            lines += ["", f"{'multiply-adds':{width + 2}}{'before':>12}{'after':>12}"]
        for part in (*self.macs_before, "all"):
            before, after = (
                sum(macs.values()) if part == "all" else macs[part] for macs in (self.macs_before, self.macs_after)
            )
            if before or after:
                lines.append(f"{part:{width + 2}}{_millions(before):>12}{_millions(after):>12}")
        return [*lines, "", self.summary()]

    def _cut_lines(self) -> list[str]:
        if not self.cut:
            return []
        roles, names = (max(len(getattr(t, key)) for t in self.cut) for key in ("role", "name"))
        rows = (f"{t.role:{roles}}  {t.name:{names}}  {_shape(t.shape)}" for t in self.cut)
        return ["", f"{'cut at':{roles}}  {'in the file':{names}}  shape", *rows]

    def summary(self) -> str:
        """One sentence: file, contract, size."""
        before, after = sum(self.macs_before.values()), sum(self.macs_after.values())
        if self.spec is None:
            return f"{self.output}: the tail alone, {self.size_bytes / 1e6:.1f} MB"
        h, w = self.spec.input_hw
        return (
            f"{self.output}: {self.spec.input_dtype} {h}x{w} (HxW) in, {self.spec.max_detections} slots out, "
            f"{after / 1e9:.2f} G multiply-adds ({_change(before, after)}), {self.size_bytes / 1e6:.1f} MB"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(side or '?') for side in shape)}]"


def _millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f} M"


def _change(before: int, after: int) -> str:
    return f"{100 * (after - before) / before:+.0f} %" if before else "from nothing"
