"""The twins, built once."""

from __future__ import annotations

import pytest

from tests.plugin.twins import Twin, host_twin, pretend_twin


@pytest.fixture(scope="session")
def host() -> Twin:
    return host_twin()


@pytest.fixture(scope="session")
def pretend() -> Twin:
    return pretend_twin()
