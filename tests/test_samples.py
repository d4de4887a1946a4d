"""Every numbered sample runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = sorted((ROOT / "samples").glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_sample_finds_parts(sample: Path) -> None:
    result = subprocess.run([sys.executable, sample], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert any(name in result.stdout for name in ("washer", "bolt", "gear", "bracket", "bearing", "hex nut"))
