"""Fixtures shared by all tests, and the one place where tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE_PLACES = (ROOT.parent / "shared" / "reference", ROOT / "tests" / "golden" / "reference")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Ground truth made by AdelaiDet's own PyTorch code (tests/golden/README.md says what it holds)."""
    named = os.environ.get("TRT_BLENDMASK_REFERENCE")
    places = (Path(named),) if named else REFERENCE_PLACES
    for place in places:
        if (place / "blender").is_dir():
            return place
    pytest.fail(f"No reference data in {', '.join(map(str, places))}: set TRT_BLENDMASK_REFERENCE to its folder.")
