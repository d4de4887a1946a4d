from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from trt_blendmask.engines.device import Device

GPU = Device("Pretend GPU", "8.7", "R36.4.3", "12.6")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The fake TensorRT in the place of the real one, and a GPU; gives what was called so far, a line each."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "tensorrt.py").write_text(
        "from tests.engines.fake_tensorrt import *\nfrom tests.engines.fake_tensorrt import __version__\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "path")
    for module in ("tensorrt", "tests.engines.fake_tensorrt"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))  # so that what was there before comes back
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setenv("FAKE_TENSORRT_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # builds elsewhere on this machine do not matter
    for file in ("flavor", "operation"):
        monkeypatch.setattr(f"trt_blendmask.engines.{file}.find_device", lambda: GPU)
    monkeypatch.setattr("trt_blendmask.engines.parity.measure", lambda *_: "pretended")  # it runs the engine
    return lambda: (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
