"""Reads an AdelaiDet YAML with its `_BASE_` chain, as data only, and answers for one key at a time."""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError, TrtBlendMaskError, UsageError
from trt_blendmask.export.sniff import TEXT, describe
from trt_blendmask.files import existing_file

HINT = "Name the AdelaiDet YAML that the checkpoint was trained with (--config)."
MAX_BYTES = 1 << 20
MAX_CHAIN = 16
OPTS = "--opts"
# What PyYAML raises, beside its own, on hostile input.
YAML_FAULTS = (ValueError, RecursionError, OverflowError, AttributeError, TypeError, KeyError, IndexError)
_MISSING = object()
# Of detectron2's and AdelaiDet's keys, those that training, data and other networks have: a copied command has them.
_NO_EFFECT = re.compile(
    r"(SOLVER|TEST|DATASETS|DATALOADER|GLOBAL|INPUT\.CROP|MODEL\.(ROI_\w+|RPN|RETINANET|ANCHOR_GENERATOR|SEM_SEG_HEAD"
    r"|PANOPTIC_FPN))\..+|OUTPUT_DIR|SEED|VERSION|VIS_PERIOD|CUDNN_BENCHMARK|FLOAT32_PRECISION"
    r"|INPUT\.(\w+_TRAIN(_SAMPLING)?|MASK_FORMAT|RANDOM_FLIP|IS_ROTATE)"
    r"|MODEL\.(WEIGHTS|DEVICE|MASK_ON|KEYPOINT_ON|LOAD_PROPOSALS|BACKBONE\.FREEZE_AT|BLENDMASK\.(VISUALIZE|\w+_WEIGHT)"
    r"|FCOS\.(\w+_TRAIN|LOSS_\w+|LOC_LOSS_TYPE|PRIOR_PROB|CENTER_SAMPLE|POS_RADIUS|SIZES_OF_INTEREST|BOX_QUALITY)"
    r"|BASIS_MODULE\.(ANN_SET|COMMON_STRIDE|LOSS_\w+|NUM_CLASSES))"
)


@dataclass(frozen=True)
class Layer:
    """One place that values come from, named for messages; `dotted`: the keys are whole, as "MODEL.FCOS.NORM"."""

    source: str
    values: dict[str, Any]
    dotted: bool = False

    def find(self, key: str) -> Any:
        """The value, or `_MISSING`."""
        if self.dotted:
            return self.values.get(key, _MISSING)
        node: Any = self.values
        for part in key.split("."):
            node = node.get(part, _MISSING) if isinstance(node, dict) else _MISSING
        return node


@dataclass(frozen=True)
class YamlTree:
    """Layers of values, the strongest first: the options, then the preset or the documents of a `_BASE_` chain.

    Nothing is merged: a lookup costs a few steps whatever aliases a hostile file is made of. The first layer that has a
    key gives its value, which is what merging gives too: only sections are merged, and every key asked for is a leaf.
    `asked` collects the keys that somebody has looked up.
    """

    layers: tuple[Layer, ...]
    asked: set[str] = field(default_factory=set, compare=False)

    def get(self, key: str, default: Any) -> Any:
        """The value at a dotted key such as "MODEL.FCOS.NORM"; text that spells a Python literal is read as one."""
        self.asked.add(key)
        return next((_spelled(value) for layer in self.layers if (value := layer.find(key)) is not _MISSING), default)

    def refuse(self, key: str, value: object, expected: str) -> TrtBlendMaskError:
        """The error for a value that is out of range or not supported: usage where an option says so, else data."""
        shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
        if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value[:20]):
            shown = repr(list(value[:20]))
        source = next(
            (layer.source for layer in self.layers if layer.find(key) is not _MISSING), self.layers[-1].source
        )
        kind = UsageError if source == OPTS else DataError
        return kind(f"{source} has {key}: {shown[:120]}, expected {expected}.")

    def check_options(self) -> tuple[str, ...]:
        """The keys that the options set without an effect on inference; to be asked once all others were looked up.

        Raises:
            UsageError: a key that neither this package nor training knows; the nearest is named.
        """
        unread = [key for layer in self.layers if layer.source == OPTS for key in layer.values if key not in self.asked]
        unknown = [key for key in unread if not _NO_EFFECT.fullmatch(key)]
        if not unknown:
            return tuple(unread)
        key = unknown[0]
        known = {name.upper(): name for name in sorted(self.asked)}
        near = [name for upper, name in known.items() if upper.endswith(f".{key.upper()}")]
        near = near or [known[match] for match in difflib.get_close_matches(key.upper(), known, 1, 0.75)]
        advice = f"Did you mean {' or '.join(near[:3])}?" if near else "Leave it out."
        raise UsageError(f"{OPTS} sets {key[:100]}, which this network has no use for. {advice}")

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


def read_yaml_chain(path: Path) -> dict[Path, dict[str, Any]]:
    """Read a YAML and the files that `_BASE_` names, relative to the file that names them; by file, `path` first.

    Raises:
        InputMissingError: a file of the chain is not there. DataError: not YAML, or the chain has a cycle.
        NotTrustedError: a `!!python/...` tag.
    """
    chain: dict[Path, dict[str, Any]] = {}
    seen: list[Path] = []
    current = Path(path)
    hint = HINT
    while True:
        file = existing_file(current, "a YAML config", hint)
        if file.resolve() in seen or len(seen) == MAX_CHAIN:
            raise DataError(f"The _BASE_ chain of '{path}' comes back to '{file}' or is too long. Remove that _BASE_.")
        seen.append(file.resolve())
        document = _read_one(file)
        chain[file] = document
        base = document.get("_BASE_")
        if base is None:
            return chain
        if not isinstance(base, str) or "://" in base or not base.strip():
            raise DataError(f"'{file}' has a _BASE_ that is not a file name. Copy that file here and name it instead.")
        hint = f"'{file.name}' names it as its _BASE_: copy it there, or take --preset, which needs no YAML."
        try:
            current = file.parent / Path(base).expanduser()
        except RuntimeError as error:  # "~someone"
            raise InputMissingError(
                f"'{file}' has the _BASE_ '{base[:80]}', whose home folder is not known."
            ) from error


def parse_opts(words: Sequence[str]) -> dict[str, Any]:
    """`KEY VALUE KEY VALUE ...` as detectron2 takes it; a value is a Python literal, else YAML, else text.

    Raises:
        UsageError: a key without a value, or a value where a key should be.
    """
    import yaml

    example = f"{OPTS} MODEL.FCOS.NUM_CLASSES 3 MODEL.BLENDMASK.ATTN_SIZE 7"
    found: dict[str, Any] = {}
    for key, text in zip_longest(words[0::2], words[1::2]):
        if text is None or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
            what = "a key without a value" if text is None else "a key that is none"
            raise UsageError(
                f"Expected pairs of a key and its value after {OPTS}, got {what}: '{key[:80]}'. As in: {example}"
            )
        value = _spelled(text)
        if value is text:
            try:
                value = yaml.load(text, Loader=_loader())
            except (yaml.YAMLError, NotTrustedError, *YAML_FAULTS):
                value = text
        found[key] = value
    return found


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
    except YAML_FAULTS as error:
        looks = describe(data[:512])
        if looks == TEXT and isinstance(error, UnicodeDecodeError):
            raise DataError(
                f"Expected a YAML config in UTF-8 at '{file}', got another encoding. Save it as UTF-8."
            ) from error
        raise DataError(f"Expected a YAML config at '{file}', but it looks like {looks}. {HINT}") from error
    if not isinstance(document, dict):
        raise DataError(f"Expected a YAML config at '{file}', but it holds no keys. {HINT}")
    return document


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that names `!!python` tags and has no merge keys, which can be made to grow without bound."""

        def construct_yaml_int(self, node: Any) -> int:
            if len(node.value) > 100:  # 1:59:59: ... is worked out in quadratic time
                raise yaml.constructor.ConstructorError(None, None, "a number without end", node.start_mark)
            return int(super().construct_yaml_int(node))

        def flatten_mapping(self, node: Any) -> None:
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(None, None, "'<<' is not supported", key.start_mark)

    def refuse(_: Any, suffix: str, node: Any) -> None:
        tag = f"!!python/{suffix}"[:100]
        raise NotTrustedError(f"line {node.start_mark.line + 1} has the tag '{tag}', which asks for code to be run")

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", refuse)
    return Loader


def _spelled(value: Any) -> Any:
    """Text that spells a Python literal, as yacs reads it: "(8, 16, 32)", and 5e-2, which is text to YAML."""
    if not isinstance(value, str) or len(value) > 10_000:
        return value
    try:
        with warnings.catch_warnings():  # Python's remarks on odd spellings are of no use here
            warnings.simplefilter("ignore")
            return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
