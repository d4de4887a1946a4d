"""The classes of one list of names in another one."""

from __future__ import annotations

from collections.abc import Sequence


def places(names: Sequence[str], among: Sequence[str]) -> list[int | None]:
    """For each of `names` its place in `among`, None where that has none of that name.

    A model without names of its own ("class 0", "class 1", ...) has them in the order of `among`, if there are as many.
    """
    if len(names) == len(among) and (_are_numbers(names) or _are_numbers(among)):
        return list(range(len(names)))
    where = {_plain(name): place for place, name in enumerate(among)}
    return [where.get(_plain(name)) for name in names]


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name == f"class {place}" for place, name in enumerate(names))


def _plain(name: str) -> str:
    return name.strip().casefold()
