"""What only a library itself can tell, asked in a process of its own: libraries may crash, hang or print.

Each answer is a line of JSON behind `MARK`; a child may give several, so that what came before a crash is not lost.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from trt_blendmask.errors import first_line

MARK = "trt-blendmask doctor: "
_TOTAL, _MAJOR, _MINOR = "cuDeviceTotalMem_v2", 75, 76  # the attributes of a compute capability, cuda.h


def say(**facts: Any) -> None:
    print(f"{MARK}{json.dumps(facts)}", flush=True)


def python() -> None:
    """This interpreter, and the versions of what is installed in it."""
    versions = {dist.metadata["Name"]: dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    say(version=platform.python_version(), venv=sys.prefix != sys.base_prefix, packages=versions)


def driver() -> None:
    """The driver's CUDA and its GPUs; no context is made."""
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        absent = "No such file" in str(error)
        say(problem="libcuda.so.1 is not there" if absent else f"libcuda.so.1 cannot be loaded: {error}")
        return
    number = ctypes.c_int()
    if not cuda.cuDriverGetVersion(ctypes.byref(number)):
        say(cuda=f"{number.value // 1000}.{number.value % 1000 // 10}")
    if code := cuda.cuInit(0):
        say(problem=_cuda_error(cuda, code))
        return
    cuda.cuDeviceGetCount(ctypes.byref(number))
    say(gpus=[_gpu(cuda, index) for index in range(number.value)])


def _gpu(cuda: Any, index: int) -> dict[str, Any]:
    device, name, size = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    capability = [ctypes.c_int(), ctypes.c_int()]
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda[_TOTAL](ctypes.byref(size), device)
    for value, which in zip(capability, (_MAJOR, _MINOR), strict=True):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    words = ".".join(str(value.value) for value in capability)
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": words,
        "memory_bytes": size.value,
    }


def _cuda_error(cuda: Any, code: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    return f"CUDA error {code}: {(text.value or b'unknown').decode(errors='replace')}"


def tensorrt(name: str = "tensorrt") -> None:
    """A flavor's version, then whether it loads the plugin library."""
    from trt_blendmask.engines.flavor import MODULES, find
    from trt_blendmask.engines.plugin import find_plugin, load_plugin
    from trt_blendmask.errors import InputMissingError, TrtBlendMaskError

    try:
        flavor = find(name)
    except TrtBlendMaskError as error:
        module = sys.modules.get(MODULES[name])
        missing = isinstance(error.__cause__, ModuleNotFoundError)
        say(version=str(getattr(module, "__version__", "")), installed=not missing, problem=str(error))
        return
    say(version=flavor.version_text, installed=True, problem="")
    try:
        plugin = find_plugin()
        say(plugin="crashes", library=str(plugin.path))  # true if nothing follows
        load_plugin(flavor.module, plugin)
    except InputMissingError:
        say(plugin="missing")
    except TrtBlendMaskError as error:
        say(plugin="fails", plugin_problem=str(error))
    else:
        say(plugin="loads")


def rtx() -> None:
    tensorrt("rtx")


def opencv() -> None:
    import cv2

    built = cv2.getBuildInformation()
    features = {
        name: any(line.strip().startswith(f"{name}:") and "YES" in line for line in built.splitlines())
        for name in ("FFMPEG", "GStreamer", "v4l/v4l2")
    }
    say(version=cv2.__version__, features=features, place=str(Path(cv2.__file__).parent))


def pyav() -> None:
    import av

    codec = av.library_versions.get("libavcodec", ())
    say(version=av.__version__, libavcodec=".".join(map(str, codec)), h264="libx264" in av.codecs_available)


def onnxruntime() -> None:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as library

    say(version=library.__version__, providers=list(library.get_available_providers()))


def cuda_python() -> None:
    """Which of the two CUDA packages for Python can be imported; one line each, as either may crash."""
    for name in ("cuda.core", "pycuda.driver"):
        if version := _cuda_python(name):
            say(**{name: version})


def _cuda_python(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return ""
    except Exception as error:  # an import of a broken package raises anything
        return f"cannot be loaded: {type(error).__name__}: {error}"[:200]
    package = sys.modules[name.partition(".")[0]]
    return str(getattr(module, "__version__", "") or getattr(package, "VERSION_TEXT", "") or "of an unknown version")


def disk() -> None:
    """Free bytes where one works and, if that is another disk, where caches go; a network disk may not answer."""
    from trt_blendmask.cache import cache_folder

    cache = next(folder for folder in (cache_folder(), *cache_folder().parents) if folder.is_dir())
    folders = {folder.stat().st_dev: folder for folder in (cache, Path.cwd())}
    for folder in folders.values():
        usage = shutil.disk_usage(folder)
        say(**{str(folder): {"free_bytes": usage.free, "total_bytes": usage.total}})


MODULES = ("cv2", "av", "onnxruntime")
PROBES = (python, driver, tensorrt, rtx, opencv, pyav, onnxruntime, cuda_python, disk)


def main(name: str) -> None:
    try:
        next(probe for probe in PROBES if probe.__name__ == name)()
    except ModuleNotFoundError as error:
        say(problem="is not installed" if error.name in MODULES else f"cannot be loaded: {error}")
    except Exception as error:  # a broken library raises anything
        say(problem=f"cannot be loaded: {type(error).__name__}: {first_line(error)}"[:300])
    os._exit(0)  # all is said and flushed: what a library does when it is taken down is no answer
