"""The classes of one list of names in another one."""

from __future__ import annotations

from collections.abc import Sequence


def places(names: Sequence[str], among: Sequence[str]) -> list[int | None]:
    """For each of `names` its place in `among`, None where that has none of that name.

    Upper and lower case count only where there are both. A model without names of its own ("class 0", "class 1", ...)
    has them in the order of `among`, if there are as many.
    """
    numbered = len(names) == len(among) and (_are_numbers(names) or _are_numbers(among))
    if numbered or list(names) == list(among):
        return list(range(len(names)))
    exactly = {name: place for place, name in enumerate(among)}
    found = [exactly.get(name) for name in names]
    roughly = {_plain(name): place for place, name in enumerate(among) if place not in found}
    return [roughly.get(_plain(name)) if place is None else place for name, place in zip(names, found, strict=True)]


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name == f"class {place}" for place, name in enumerate(names))


def _plain(name: str) -> str:
    return name.strip().casefold()
