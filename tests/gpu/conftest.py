"""The twins that a GPU is compared with."""

from __future__ import annotations

from tests.plugin.conftest import host, pretend

__all__ = ["host", "pretend"]
