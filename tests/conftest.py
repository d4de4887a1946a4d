"""Fixtures shared by all tests, and the one place where tests are skipped."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE_PLACES = (ROOT.parent / "shared" / "reference", ROOT / "tests" / "golden" / "reference")


def reference_folder() -> Path:
    """Ground truth made by AdelaiDet's own PyTorch code (tests/golden/README.md says what it holds)."""
    named = os.environ.get("TRT_BLENDMASK_REFERENCE")
    places = (Path(named),) if named else REFERENCE_PLACES
    for place in places:
        if (place / "blender").is_dir():
            return place
    pytest.fail(f"No reference data in {', '.join(map(str, places))}: set TRT_BLENDMASK_REFERENCE to its folder.")


@pytest.fixture(scope="session")
def reference() -> Path:
    """See `reference_folder`."""
    return reference_folder()


def has_gpu() -> bool:
    """Whether the CUDA driver is there and finds a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


# What a test may need that not every machine has: @pytest.mark.needs("gpu", "nvcc").
NEEDS: dict[str, Callable[[], bool]] = {
    "gpu": has_gpu,
    "nvcc": lambda: shutil.which(os.environ.get("NVCC", "nvcc")) is not None,
    "gst-rtsp-server": lambda: any(Path("/usr/lib").glob("*/girepository-1.0/GstRtspServer-1.0.typelib")),
    "mosquitto": lambda: shutil.which("mosquitto") is not None,
    "openssl": lambda: shutil.which("openssl") is not None,
    "compute-sanitizer": lambda: shutil.which("compute-sanitizer") is not None,
    "chromium": lambda: Path("/usr/bin/chromium").exists(),
    "cuda-core": lambda: find_spec("cuda") is not None and find_spec("cuda.core") is not None,
    "pycuda": lambda: find_spec("pycuda") is not None,
    "tensorrt": lambda: find_spec("tensorrt") is not None,
    "tensorrt_rtx": lambda: find_spec("tensorrt_rtx") is not None,
}


def pytest_configure(config: pytest.Config) -> None:
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:  # by nohup, or in the background of a shell: tests send them
            signal.signal(number, handler)
    config.addinivalue_line("markers", f"needs(*what): skipped without {', '.join(NEEDS)}; REQUIRE_GPU=1 ... fails it")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine has not, or, where REQUIRE_GPU=1, REQUIRE_NVCC=1 ... say that it must have it, fail."""
    for what in [name for mark in item.iter_markers("needs") for name in mark.args]:
        if not NEEDS[what]():
            required = os.environ.get(f"REQUIRE_{what.upper().replace('-', '_')}", "") not in ("", "0")
            if required:
                pytest.fail(f"needs {what}, and this machine has none", pytrace=False)
            pytest.skip(f"needs {what}, and this machine has none")
