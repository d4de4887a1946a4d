"""Against an RTSP server of other people's: that ours agrees with our own fixture proves little."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.sources import LiveOptions, open_source

from .conftest import until
from .test_live import lost

pytestmark = [pytest.mark.usefixtures("fast", "no_threads_left"), pytest.mark.needs("gst-rtsp-server")]


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    words = ["/usr/bin/python3", str(Path(__file__).with_name("gst_server.py"))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, f"rtsp://127.0.0.1:{process.stdout.readline().strip()}/live"
        process.kill()


@pytest.mark.parametrize("query", ["", "?transport=udp"])
def test_it_is_played_and_its_freeze_survived(server: tuple[subprocess.Popen[str], str], query: str) -> None:
    process, url = server
    events, times = Events(), []
    source = open_source(url + query, LiveOptions(stale_s=0.6), events)
    thread = threading.Thread(target=lambda: times.extend(frame.time_s for frame in source))
    thread.start()
    assert until(lambda: len(times) > 25)
    assert source.fps == 25
    assert times[25] - times[5] == pytest.approx(20 / 25, abs=0.15)
    process.send_signal(signal.SIGSTOP)
    assert until(lambda: source.state().kind == "NO SIGNAL", 2)
    process.send_signal(signal.SIGCONT)
    assert until(lambda: source.state().kind == "LIVE", 6)
    assert lost(events) == ["stale"]
    assert source.corrupt == 0
    source.close()
    thread.join(2)
    assert not thread.is_alive()
