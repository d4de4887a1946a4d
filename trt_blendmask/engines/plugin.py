"""The plugin library: where it lies, which one it is, and how TensorRT gets it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.engines.passport import check_private
from trt_blendmask.errors import DataError, InputMissingError
from trt_blendmask.files import file_sha256

NAME, VERSION, NAMESPACE = "RoiAlignBlend", "1", "trt_blendmask"
VARIABLE = "TRT_BLENDMASK_PLUGIN"
LIBRARY = Path(__file__).resolve().parent.parent / "lib" / "libtrt_blendmask.so"


@dataclass(frozen=True)
class Plugin:
    """A plugin library, by its place and hash."""

    path: Path
    sha256: str


def find_plugin(path: str | os.PathLike[str] | None = None) -> Plugin:
    """The library at `path`; without one, that of the variable TRT_BLENDMASK_PLUGIN, or the package's own.

    Raises:
        InputMissingError: there is none.
        NotTrustedError: others could have written it.
    """
    given = os.fspath(path or "") or os.environ.get(VARIABLE, "")
    library = Path(os.path.realpath(given or LIBRARY))
    if not library.is_file():
        raise InputMissingError(
            f"Expected the plugin library at '{given or LIBRARY}', but there is no such file. Compile it: make plugin "
            f"(then name it: --plugin F, or {VARIABLE}=F), or build without it: trt-blendmask surgery --tail native"
        )
    check_private(library)
    return Plugin(library, file_sha256(library))


def load_plugin(trt: Any, plugin: Plugin) -> None:
    """Hand the library to the registry of `trt`, the module of a flavor; once per process.

    Raises:
        DataError: TensorRT cannot use it, or another one is loaded already.
    """
    registry = trt.get_plugin_registry()
    if registry.get_creator(NAME, VERSION, NAMESPACE) is not None:
        if _loaded.get(trt.__name__) == plugin.sha256:
            return
        raise DataError(
            f"Expected no other {NAME} plugin in this process than '{plugin.path}', but there is one. Start another "
            "process for this engine."
        )
    try:
        if file_sha256(plugin.path) != plugin.sha256:
            raise DataError(f"Expected '{plugin.path}' to stay as it is, but it was changed. Type the same again.")
        registry.load_library(str(plugin.path))
    except DataError:
        raise
    except Exception as error:  # TensorRT's bindings raise several kinds, or nothing at all
        raise _unusable(plugin) from error
    if registry.get_creator(NAME, VERSION, NAMESPACE) is None:
        raise _unusable(plugin)
    _loaded[trt.__name__] = plugin.sha256


_loaded: dict[str, str] = {}  # name of the module -> hash of the library that this process gave it


def _unusable(plugin: Plugin) -> DataError:
    return DataError(
        f"Expected the plugin {NAME} in '{plugin.path}', but TensorRT cannot load it. Compile it again for this "
        "TensorRT: make plugin"
    )
