"""JSON that others wrote, and from its dicts and lists back to frozen dataclasses, by their annotations."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from trt_blendmask.errors import DataError

T = TypeVar("T")
_MOST_DIGITS = 20  # of a whole number: 64 bits
_MOST = 1e15  # of any other: more is no measurement, and its square overflows nothing
_LEAST = 1e-30  # likewise, and its inverse


def plain_of(text: str | bytes) -> Any:
    """What JSON holds; control characters in its texts, as in TensorRT's Metadata, are let through.

    Raises:
        ValueError: it is no JSON, too deep, or has numbers that nothing measures.
    """
    try:
        return json.loads(text, strict=False, parse_int=_whole, parse_float=_real, parse_constant=_real)
    except RecursionError as error:
        raise ValueError("it is too deep") from error


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number is too large: {digits:.40}...")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not (value == 0 or _LEAST <= abs(value) <= _MOST):
        raise ValueError(f"{digits:.40} is no measurement")
    return value


def from_plain(kind: type[T], value: object, where: str) -> T:
    """`value` as the dataclass `kind`, whose fields are text, numbers, lists, tuples, dicts, dataclasses or None.

    Unknown fields are passed over. `where` names the value in messages.

    Raises:
        DataError: a field is missing, or of another type.
    """
    result: T = _reader(kind)(value, where)  # type: ignore[arg-type]  # a class is hashable
    return result


@cache
def _reader(kind: Any) -> Callable[[object, str], Any]:
    """What turns a plain value into `kind`."""
    if is_dataclass(kind):
        return lambda value, where: _dataclass(kind, value, where)
    origin, of = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(one for one in of if one is not type(None))
        return lambda value, where: None if value is None else _reader(inner)(value, where)
    if origin is dict:
        return lambda value, where: {
            _key(of[0], key, where): _reader(of[1])(item, f"{where}[{key!r:.80}]")
            for key, item in _of(dict, value, where).items()
        }
    if origin is list:
        return lambda value, where: _items(of[0], value, where)
    if origin is tuple and of[-1] is Ellipsis:
        return lambda value, where: tuple(_items(of[0], value, where))
    if origin is tuple:
        return lambda value, where: _fixed(of, value, where)
    return lambda value, where: _scalar(kind, value, where)


def _dataclass(kind: Any, value: object, where: str) -> Any:
    given = _of(dict, value, where)
    hints, found = _hints(kind), {}
    for one in fields(kind):
        if one.name in given:
            found[one.name] = _reader(hints[one.name])(given[one.name], f"{where}.{one.name}")
        elif one.default is MISSING and one.default_factory is MISSING:
            raise DataError(f"Expected '{one.name}' in {where}, but it is missing.")
    return kind(**found)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _items(kind: Any, value: object, where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _other("a list", value, where)
    read = _reader(kind)
    return [read(item, where) for item in value]


def _fixed(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != len(kinds):
        raise _other(f"{len(kinds)} values", value, where)
    return tuple(_reader(kind)(item, where) for kind, item in zip(kinds, value, strict=True))


def _key(kind: Any, key: object, where: str) -> Any:
    if kind is float and isinstance(key, str):  # JSON has no other keys
        try:
            key = float(key)
        except ValueError:
            raise _other("a number", key, where) from None
    return _scalar(kind, key, where)


def _scalar(kind: Any, value: object, where: str) -> Any:
    if kind is float and type(value) in (int, float) and math.isfinite(value):  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if kind is not float and type(value) is kind:
        return value
    raise _other({float: "a number", int: "a whole number", str: "text", bool: "true or false"}[kind], value, where)


def _of(kind: type[T], value: object, where: str) -> T:
    if not isinstance(value, kind):
        raise _other("fields by name", value, where)
    return value


def _other(expected: str, value: object, where: str) -> DataError:
    return DataError(f"Expected {expected} as {where}, got {value!r:.80}.")
