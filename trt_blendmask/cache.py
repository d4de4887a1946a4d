"""The user's cache folder, and what its entries are named after."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from trt_blendmask import __version__
from trt_blendmask.errors import OutputError

_PACKAGE = Path(__file__).resolve().parent


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/trt_blendmask`, else `~/.cache/trt_blendmask`; it need not be there yet.

    Raises:
        OutputError: this user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trt_blendmask"
    except RuntimeError as error:
        raise OutputError(f"{error} A cache is needed: set XDG_CACHE_HOME to a folder of yours.") from error


@cache
def code_sha256(*stages: str) -> str:
    """Hash of the code of those subpackages: what they make is kept under names that change with it."""
    files = sorted(_PACKAGE.glob("*.py"))  # what all of them share
    for stage in stages:
        files += sorted((_PACKAGE / stage).rglob("*.py"))
    digest = hashlib.sha256(__version__.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
