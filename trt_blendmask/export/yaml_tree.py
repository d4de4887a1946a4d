"""Reads an AdelaiDet YAML with its `_BASE_` chain, as data only."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.errors import DataError, NotTrustedError
from trt_blendmask.export.sniff import describe
from trt_blendmask.files import existing_file

HINT = "Name the AdelaiDet YAML that the checkpoint was trained with (--config)."
MAX_BYTES = 1 << 20
MAX_CHAIN = 16
_MISSING = object()


@dataclass(frozen=True)
class YamlTree:
    """The documents of a `_BASE_` chain, the named file first; a value is the first one found.

    Nothing is merged: a lookup costs a few steps whatever aliases a hostile file is made of.
    """

    path: Path
    documents: tuple[dict[str, Any], ...]

    def get(self, key: str, default: Any) -> Any:
        """The value at a dotted key such as "MODEL.FCOS.NORM"; text that spells a list or tuple is read as one."""
        for document in self.documents:
            node: Any = document
            for part in key.split("."):
                node = node.get(part, _MISSING) if isinstance(node, dict) else _MISSING
            if node is not _MISSING:
                return _spelled(node)
        return default

    def refuse(self, key: str, value: object, expected: str) -> DataError:
        """The error for a value that is out of range or not supported."""
        shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
        if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value[:20]):
            shown = repr(list(value[:20]))
        return DataError(f"'{self.path}' has {key}: {shown[:120]}, expected {expected}.")

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(key, value, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self.get(key, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.refuse(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if type(value) is not bool:
            raise self.refuse(key, value, "True or False")
        return value

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.get(key, default)
        value = "" if value is None else value
        if value not in choices:
            raise self.refuse(key, value, f"one of {', '.join(repr(c) for c in choices)}")
        return str(value)

    def numbers(self, key: str, default: tuple[float, ...], length: int) -> tuple[float, ...]:
        value = self.get(key, default)
        fits = isinstance(value, (list, tuple)) and len(value) == length
        if not fits or any(type(n) not in (int, float) or not abs(n) < 1e9 for n in value):
            raise self.refuse(key, value, f"{length} number(s)")
        return tuple(float(n) for n in value)

    def names(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(n, str) for n in value):
            raise self.refuse(key, value, "a list of names")
        return tuple(value)


def read_yaml_tree(path: Path) -> YamlTree:
    """Read a YAML and the files that `_BASE_` names, relative to the file that names them.

    Raises:
        InputMissingError: a file of the chain is not there. DataError: not YAML, or the chain has a cycle.
        NotTrustedError: a `!!python/...` tag.
    """
    documents: list[dict[str, Any]] = []
    seen: list[Path] = []
    current = Path(path)
    while True:
        file = existing_file(current, "a YAML config", HINT)
        if file.resolve() in seen or len(seen) == MAX_CHAIN:
            raise DataError(f"The _BASE_ chain of '{path}' comes back to '{file}' or is too long. Remove that _BASE_.")
        seen.append(file.resolve())
        document = _read_one(file)
        documents.append(document)
        base = document.get("_BASE_")
        if base is None:
            return YamlTree(Path(path), tuple(documents))
        if not isinstance(base, str) or "://" in base or not base.strip():
            raise DataError(f"'{file}' has a _BASE_ that is not a file name. Copy that file here and name it instead.")
        current = file.parent / Path(base).expanduser()


def _read_one(file: Path) -> dict[str, Any]:
    import yaml

    data = file.read_bytes()
    try:
        if len(data) > MAX_BYTES or b"\0" in data:
            raise ValueError
        document = yaml.load(data.decode("utf-8"), Loader=_loader())  # a SafeLoader
    except NotTrustedError as error:
        raise NotTrustedError(f"Refused '{file}': {error}. Delete that value: it is not needed here.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        reason = str(getattr(error, "problem", None) or "cannot be parsed")[:160]
        raise DataError(f"Expected a YAML config at '{file}', but it is not valid YAML{where}: {reason}.") from error
    except (
        ValueError,
        RecursionError,
        OverflowError,
        AttributeError,
        TypeError,
        KeyError,
        IndexError,
    ) as error:
        looks = describe(data[:512])
        raise DataError(f"Expected a YAML config at '{file}', but it looks like {looks}. {HINT}") from error
    if not isinstance(document, dict):
        raise DataError(f"Expected a YAML config at '{file}', but it holds no keys. {HINT}")
    return document


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that names `!!python` tags and has no merge keys, which can be made to grow without bound."""

        def flatten_mapping(self, node: Any) -> None:
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(None, None, "'<<' is not supported", key.start_mark)

    def refuse(_: Any, suffix: str, node: Any) -> None:
        tag = f"!!python/{suffix}"[:100]
        raise NotTrustedError(f"line {node.start_mark.line + 1} has the tag '{tag}', which asks for code to be run")

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", refuse)
    return Loader


def _spelled(value: Any) -> Any:
    """AdelaiDet's files may spell tuples as text: "(8, 16, 32)"."""
    if isinstance(value, str) and len(value) < 10_000 and value.strip()[:1] in ("(", "["):
        try:
            return ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value
