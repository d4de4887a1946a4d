"""The outputs of a raw-head graph by their names: exactly those of the contract, or with a prefix or suffix."""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_graphsurgeon as gs

PARTS = ("logits", "bbox_reg", "centerness", "top_feats")
_CONTRACT = rf"P(\d{{1,2}})_?({'|'.join(PARTS)})|(bases)"
_EXACT = re.compile(rf"P(\d{{1,2}})({'|'.join(PARTS)})|(bases)")
_LOOSE = re.compile(rf"(?:.*[^A-Za-z0-9])?(?:{_CONTRACT})(?:[^A-Za-z0-9].*)?")


@dataclass(frozen=True)
class Ends:
    """Which output is what: `levels` by the number in "P3logits", then by part."""

    bases: gs.Variable
    levels: dict[int, dict[str, gs.Variable]]

    def renamed(self) -> str:
        """Which names differ from the contract's, in a sentence; empty: none."""
        said = [] if self.bases.name == "bases" else [f"'{self.bases.name}' is bases"]
        for number, parts in sorted(self.levels.items()):
            if any(tensor.name != f"P{number}{part}" for part, tensor in parts.items()):
                names = ", ".join(f"'{parts[part].name}'" for part in PARTS)
                said.append(f"{names} are P{number}{', '.join(PARTS)}")
        return "; ".join(said)


def contract_name(name: str) -> tuple[int, str]:
    """Level and part that a name tells, with a prefix or suffix allowed: (3, "logits"), (0, "bases") or (0, "")."""
    match = _LOOSE.fullmatch(name)
    if match is None:
        return 0, ""
    return (0, "bases") if match[3] else (int(match[1]), match[2])


def by_name(outputs: dict[str, gs.Variable]) -> Ends | None:
    """The outputs bound by name alone; None unless `bases` and all parts of all levels are there, and once."""
    exact = {name: tensor for name, tensor in outputs.items() if _EXACT.fullmatch(name)}
    return _bound(exact) or _bound(outputs)


def _bound(outputs: dict[str, gs.Variable]) -> Ends | None:
    bases: list[gs.Variable] = []
    levels: dict[int, dict[str, gs.Variable]] = {}
    for name, tensor in outputs.items():
        number, part = contract_name(name)
        if part == "bases":
            bases.append(tensor)
        elif part and levels.setdefault(number, {}).setdefault(part, tensor) is not tensor:
            return None
    if len(bases) != 1 or not levels or any(len(parts) < len(PARTS) for parts in levels.values()):
        return None
    return Ends(bases[0], levels)


def rename(graph: gs.Graph, ends: Ends) -> None:
    """Give the outputs the contract's names; what else has one of them gives it up."""
    wanted = {id(ends.bases): "bases"}
    for number, parts in ends.levels.items():
        wanted.update((id(tensor), f"P{number}{part}") for part, tensor in parts.items())
    names = set(wanted.values())
    for tensor in graph.tensors().values():
        if id(tensor) not in wanted and tensor.name in names:
            tensor.name = f"raw.{tensor.name}"
    for tensor in (ends.bases, *(tensor for parts in ends.levels.values() for tensor in parts.values())):
        tensor.name = wanted[id(tensor)]
