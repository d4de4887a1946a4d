"""The server, without waiting between tries and without the proxies of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.zoo.server import Server
from trt_blendmask.zoo import download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()
