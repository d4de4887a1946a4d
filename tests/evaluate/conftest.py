"""Annotated scenes of the bundled model's world."""

from __future__ import annotations

from pathlib import Path

import pytest

from samples.conveyor.scenes import write_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with annotations.json and images/, four of them."""
    folder = tmp_path_factory.mktemp("evaluate") / "scenes"
    write_scenes(folder, 777, 4, (512, 288), None)
    return folder
