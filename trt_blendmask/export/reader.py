"""Reads a checkpoint's tensors without PyTorch: `.pth` in both of PyTorch's forms, and `.safetensors`.

The form is told from the bytes, not from the suffix. Tensors stay in the file until they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.errors import DataError, NotTrustedError
from trt_blendmask.export import pth, safetensors
from trt_blendmask.export.sniff import describe
from trt_blendmask.export.storage import DamagedError, Weight
from trt_blendmask.files import existing_file

HINT = "Name a .pth or .safetensors checkpoint of BlendMask."
ZIP_START = b"PK\x03\x04"
WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "model.")  # of DataParallel, and of a network held by a trainer; they may be nested


@dataclass(frozen=True)
class Checkpoint:
    """The network's tensors by their AdelaiDet names, and the names of what else the file holds."""

    path: Path
    weights: dict[str, Weight]
    other_keys: tuple[str, ...]


def looks_like_checkpoint(head: bytes) -> bool:
    """Whether a file that begins so may be one."""
    return head.startswith(ZIP_START) or pth.is_legacy(head) or safetensors.is_safetensors(head)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read names, shapes and places of all tensors; `{'model': ...}`, `{'state_dict': ...}` and plain are taken.

    Prefixes of wrappers are dropped, and `centerness` becomes `ctrness` in every key, as AdelaiDet's
    tools/rename_blendmask.py does.

    Raises:
        InputMissingError: no such file. DataError: of another kind, truncated or inconsistent.
        NotTrustedError: its pickle asks for anything beyond building tensors.
    """
    file = existing_file(path, "a checkpoint", HINT)
    with file.open("rb") as stream:
        head = stream.read(512)
    try:
        if head.startswith(ZIP_START):
            return _checkpoint(file, pth.read_zip(file))
        if pth.is_legacy(head):
            return _checkpoint(file, pth.read_legacy(file))
        if safetensors.is_safetensors(head):
            return _checkpoint(file, safetensors.read(file))
    except DamagedError as error:
        raise DataError(
            f"Expected a whole BlendMask checkpoint in '{file}', but {error}. Copy or download it again, or save the "
            "weights as .safetensors."
        ) from error
    except NotTrustedError as error:
        raise NotTrustedError(
            f"Refused the checkpoint '{file}': {error}. If you trust its author, load it in Python with torch.load "
            "and save only its state dict, best as .safetensors."
        ) from error
    raise DataError(f"Expected a checkpoint in '{file}', but it looks like {describe(head)}. {HINT}")


def _checkpoint(file: Path, tree: Any) -> Checkpoint:
    other: list[str] = []
    state = tree
    for wrapper in WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            other = sorted(str(key)[:80] for key in tree if key != wrapper)
            state = tree[wrapper]
            break
    if not isinstance(state, dict):
        raise DataError(f"Expected a state dict in '{file}', but it holds something else. {HINT}")
    weights: dict[str, Weight] = {}
    for key, value in state.items():
        name = _current_name(str(key))
        if not isinstance(value, Weight):
            other.append(name[:80])
        elif name in weights:
            raise DataError(f"Expected one tensor per name in '{file}', but two are called '{name[:120]}'. {HINT}")
        else:
            weights[name] = value
    if not weights:
        raise DataError(f"Expected a checkpoint with weights in '{file}', but it holds no tensor. {HINT}")
    return Checkpoint(file, weights, tuple(other))


def _current_name(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key.replace("centerness", "ctrness")
