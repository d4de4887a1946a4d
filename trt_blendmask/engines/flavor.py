"""Which TensorRT is here: the full one (Python module `tensorrt`) or TensorRT-RTX (`tensorrt_rtx`), the same API."""

from __future__ import annotations

import importlib
import re
import warnings
from dataclasses import dataclass
from typing import Any

from trt_blendmask.engines.device import find_device
from trt_blendmask.errors import SourceUnavailableError, first_line

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
OLDEST = 10
TITLES = {"tensorrt": "TensorRT", "rtx": "TensorRT-RTX"}
_GET_RTX = "pip install 'trt-blendmask[rtx]'"
_GET = {
    "tensorrt": "pip install 'trt-blendmask[tensorrt]' (on a Jetson it comes with JetPack: sudo apt install "
    "python3-libnvinfer, and a virtual environment made with --system-site-packages)",
    "rtx": _GET_RTX,
}


@dataclass(frozen=True)
class Flavor:
    """An imported TensorRT.

    Attributes:
        name: "tensorrt" or "rtx". module: the imported module. version: (10, 3, 0, 26), as many parts as it says.
    """

    name: str
    module: Any
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """ "10.3.0.26"."""
        return ".".join(map(str, self.version))

    @property
    def title(self) -> str:
        """ "TensorRT-RTX 1.7.1.116"."""
        return title_of(self.name, self.version_text)


def title_of(name: str, version: str) -> str:
    """What a flavor is called by its makers, "TensorRT-RTX 1.7.1.116"."""
    return f"{TITLES[name]} {version}"


def find(name: str = "auto") -> Flavor:
    """The TensorRT of that name, "tensorrt" or "rtx".

    "auto" is the full one where there is a GPU, else TensorRT-RTX, which builds without; the other one if that is
    missing.

    Raises:
        SourceUnavailableError: it is not installed, cannot be loaded, or is older than TensorRT 10.
    """
    if name != "auto":
        return _load(name)
    wanted, other = ("tensorrt", "rtx") if find_device() is not None else ("rtx", "tensorrt")
    try:
        return _load(wanted)
    except SourceUnavailableError as first:
        try:
            return _load(other)
        except SourceUnavailableError as second:
            if isinstance(first.__cause__, ModuleNotFoundError) and isinstance(second.__cause__, ModuleNotFoundError):
                raise SourceUnavailableError(
                    f"Expected TensorRT {OLDEST} or newer, or TensorRT-RTX, but neither is installed. For TensorRT-RTX "
                    f"type: {_GET_RTX}; for TensorRT: {_GET['tensorrt']}."
                ) from second
            raise (second if isinstance(first.__cause__, ModuleNotFoundError) else first) from second


def _load(name: str) -> Flavor:
    title = TITLES[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError as error:
        if error.name == MODULES[name]:
            raise SourceUnavailableError(
                f"Expected {title}, but the Python package {MODULES[name]} is not installed: {_GET[name]}."
            ) from error
        raise _broken(name, error) from error
    except Exception as error:  # its libraries are missing, or of another machine: several kinds
        raise _broken(name, error) from error
    text = str(getattr(module, "__version__", ""))
    version = tuple(map(int, re.findall(r"\d+", text.split("+")[0])[:4]))
    if not version:
        raise SourceUnavailableError(f"Expected {title}, but the module {MODULES[name]} is another: {_GET[name]}.")
    if name == "tensorrt" and version[0] < OLDEST:
        raise SourceUnavailableError(
            f"Expected TensorRT {OLDEST} or newer, got {text}: on a Jetson update to JetPack 6.1 or newer, elsewhere "
            f"type: {_GET_RTX}, or pip install -U tensorrt"
        )
    return Flavor(name, module, version)


def _broken(name: str, error: Exception) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"Expected {TITLES[name]}, but the Python package {MODULES[name]} cannot be loaded ({first_line(error)}): "
        f"{_GET[name]}."
    )
