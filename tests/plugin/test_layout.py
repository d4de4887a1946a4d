"""plugins/abi says where TensorRT's functions, members and values lie. What it says is compared with a listing that was
made from TensorRT's own headers (10.0, 10.3, 10.13, 10.16, 11.0 and 11.1 give the same); `make test-abi` makes it anew.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import check_layers

PLUGINS = Path(__file__).resolve().parent.parent.parent / "plugins"


def listing(interfaces: str, folder: Path) -> str:
    """What layout.cpp prints, compiled with `interfaces` for plugins/abi/plugin_interfaces.h."""
    (folder / "abi").mkdir()
    (folder / "abi" / "plugin_interfaces.h").write_text(interfaces)
    (folder / "abi" / "tensorrt.h").write_text((PLUGINS / "abi" / "tensorrt.h").read_text())
    source, pretend = PLUGINS / "tests" / "layout.cpp", PLUGINS / "tests" / "pretend_cuda"
    command = [os.environ.get("CXX", "g++"), "-std=c++17", f"-I{folder}", f"-I{pretend}", str(source)]
    subprocess.run([*command, "-o", str(folder / "layout")], check=True)
    return subprocess.run([str(folder / "layout")], check=True, capture_output=True, text=True).stdout


INTERFACES = (PLUGINS / "abi" / "plugin_interfaces.h").read_text()
EXPECTED = (PLUGINS / "tests" / "layout.txt").read_text()


def test_layout_is_tensorrts(tmp_path: Path) -> None:
    assert listing(INTERFACES, tmp_path) == EXPECTED


@pytest.mark.parametrize(
    ("this", "other"),
    [
        ("  virtual int32_t getNbTactics()", "  virtual void added() {}\n  virtual int32_t getNbTactics()"),
        ("kHWC8 = 2,", "kHWC8 = 11,"),
        ("  Dims min;\n  Dims max;", "  Dims max;\n  Dims min;"),
    ],
)
def test_another_layout_is_noticed(tmp_path: Path, this: str, other: str) -> None:
    assert this in INTERFACES
    assert listing(INTERFACES.replace(this, other), tmp_path) != EXPECTED


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("roi_align_blend_math.h", "#include <cuda_fp16.h>", "the arithmetic may not include cuda_fp16.h"),
        ("roi_align_blend_kernel.cu", '#include "abi/tensorrt.h"', "the kernel may not include abi/tensorrt.h"),
        ("roi_align_blend_kernel.h", "nvinfer1::Dims dims;", "the kernel may not say nvinfer1"),
        ("roi_align_blend_plugin.cpp", '#include "roi_align_blend_math.h"', "the plugin may not include"),
        ("roi_align_blend_plugin.cpp", "#include <NvInferRuntime.h>", "the plugin may not include NvInferRuntime.h"),
        ("roi_align_blend_plugin.cpp", "x = expf(y);", "the plugin may not say expf("),
        ("Sigmoid.cpp", "", "belongs to no layer"),
    ],
)
def test_layers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str, said: str) -> None:
    monkeypatch.setattr(check_layers, "PLUGINS", tmp_path)
    (tmp_path / name).write_text(line + "\n")
    assert said in check_layers.problems_of(tmp_path / name)[0]
