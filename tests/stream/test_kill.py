"""kill -9 while recording; `python -m tests.stream.kills` does it fifty times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.conftest import stub_model  # noqa: F401

from .kills import LIMIT_LOST_S, record_and_kill


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_kill_loses_less_than_a_second(
    stub_model: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
    suffix: str,
) -> None:
    remains = record_and_kill(stub_model(), tmp_path, suffix, 1.2)
    assert remains.plays
    assert remains.frames >= 3
    assert remains.lost_s <= LIMIT_LOST_S
    assert remains.broken_lines == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"belt{suffix}", "belt.jsonl", "model.onnx"}
