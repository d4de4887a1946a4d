"""The real cuda.core and PyCUDA, called as we call them, over a double of the driver (fake_libcuda.c): every name,
argument and order of calls is theirs to refuse. In a process of its own, which alone believes that it has a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# Where PyCUDA was built without a driver to link with, its other functions are missing: they are looked up when called.
RUN = "import os, sys, pytest; sys.setdlopenflags(os.RTLD_LAZY); sys.exit(pytest.main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*command, "-o", library, HERE / "fake_libcuda.c", "-ldl", "-lpthread"], check=True)
    return library


@pytest.mark.parametrize(
    ("library", "least"),
    [
        pytest.param("core", 16, marks=pytest.mark.needs("cuda-core")),
        pytest.param("pycuda", 20, marks=pytest.mark.needs("pycuda")),
    ],
)
def test_suite_and_frames(driver: Path, library: str, least: int) -> None:
    files = [str(HERE.parent / "gpu" / "test_cuda.py"), str(HERE / "over_driver.py")]
    environment = {**os.environ, "LD_PRELOAD": str(driver), "REQUIRE_GPU": "1"}
    command = [sys.executable, "-c", RUN, "-p", "no:cacheprovider", *files, "-k", library]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.count(".") >= least, done.stdout
