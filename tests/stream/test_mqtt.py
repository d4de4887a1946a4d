"""--mqtt against a real broker that is there, goes, comes back, hangs, or lets nobody in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from paho.mqtt.client import MQTTMessageInfo
from paho.mqtt.enums import MQTTErrorCode

from tests.runtime.conftest import clip, stub_model  # noqa: F401
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.pipeline import RunReport, run
from trt_blendmask.runtime.recording import Recording, mqtt
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.recording.lines import line_of
from trt_blendmask.runtime.recording.mqtt import Mqtt
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources import SourceState
from trt_blendmask.structures import Detections, Frame

from .conftest import until
from .mosquitto import Mosquitto, Subscriber

Maker = Callable[..., Path]
pytestmark = pytest.mark.needs("mosquitto")
SCHEMA = Path(mqtt.__file__).parents[2] / "data" / "frame.schema.json"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(mqtt, "LONGEST_PAUSE_S", 0.3)


def heavy() -> FrameResult:
    """Its message has 20 kB, so that few of them fill the buffers of a socket."""
    none = np.zeros((0, 8, 8), np.float32)
    found = Detections(none[:, 0, :4], none[:, 0, 0], np.zeros(0, np.int32), none, (160, 120), ("nut",))
    frame = Frame(np.zeros((120, 160, 3), np.uint8), 0, 0.0, "x" * 20_000, 12.5, 1.7e9, "belt")
    return FrameResult(frame, found, SourceState("LIVE", 0.0))


def run_words(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def publish(model: Path, source: Path | str, port: int, events: Events, **more: object) -> RunReport:
    recording = Recording(mqtt=Broker("127.0.0.1", port, "belt/1"), json_masks="polygons")
    return run(model, source, recording=recording, events=events, **more)  # type: ignore[arg-type]


def test_every_frame_of_a_file_is_a_message(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:  # noqa: F811
    lines = tmp_path / "a.jsonl"
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, "belt/#") as ears:
        report = publish(stub_model(), clip(frames=60), broker.port, Events(), json=lines)
        assert until(lambda: len(ears.of("belt/1/state")) == 2)
        messages = ears.of("belt/1")
        assert messages == [json.loads(line) for line in lines.read_text().splitlines()]
        assert ears.of("belt/1/state") == ["online", "offline"]
        assert [event["kind"] for event in ears.of("belt/1/events")][:1] == ["broker_connected"]
        with Subscriber(broker.port, "belt/1/state") as late:
            assert until(lambda: late.got == [("belt/1/state", b"offline", True)])
    assert (len(messages), report.failures) == (60, ())
    for message in messages:
        jsonschema.validate(message, json.loads(SCHEMA.read_text()))


def test_a_broker_that_is_killed_and_comes_back(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    events, done = Events(), threading.Event()
    source = "synthetic:conveyor?live=1&fps=25&size=64x36&seconds=60"
    reports: list[RunReport] = []

    def work() -> None:
        reports.append(publish(stub_model(), source, broker.port, events, max_frames=70))
        done.set()

    broker = Mosquitto(tmp_path)  # not there at the start
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert until(lambda: events.counters().get("broker_lost") == 1, 20)
    with broker:
        with Subscriber(broker.port, "belt/1") as ears:
            assert until(lambda: len(ears.got) > 10)
        broker.kill()
        assert until(lambda: events.counters()["broker_lost"] == 2)
        time.sleep(0.3)
        broker.start()
        with Subscriber(broker.port, "belt/#") as ears:
            assert until(lambda: len(ears.of("belt/1")) > 10)
            assert done.wait(20)
            told = [event["kind"] for event in ears.of("belt/1/events")]
            assert until(lambda: ears.of("belt/1/state")[-1] == "offline")
    assert sorted(told[:2]) == ["broker_connected", "broker_lost"]  # what happened meanwhile comes late
    assert (reports[0].frames, reports[0].failures) == (70, ())
    lost = [event for event in events.history() if event.kind == "broker_lost"]
    assert lost[0].details["reason"] == "connection refused"
    missed = [event.details["frames_missed"] for event in events.history() if event.kind == "broker_connected"]
    assert len(missed) == 2
    assert missed[1] >= 5
    at_the_end = [event.details["frames"] for event in events.history() if event.kind == "broker_missed"]
    assert at_the_end == [pytest.approx(sum(missed), abs=3)]


def test_a_broker_that_hangs_holds_up_no_live_frame_and_no_memory(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        sink = Mqtt(Broker("127.0.0.1", broker.port, "belt"), "rle", Events(), lambda: False)
        sink.check()
        broker.process.send_signal(signal.SIGSTOP)
        one, longest = heavy(), 0.0
        for _ in range(1500):  # 20 MB and more: no socket holds that
            began = time.monotonic()
            sink.write(one)
            longest = max(longest, time.monotonic() - began)
        assert sink.dropped > 300
        assert len(sink._under_way) <= mqtt.MOST_UNDER_WAY
        assert len(sink._client._out_packet) <= mqtt.MOST_UNDER_WAY + 5
        assert longest < 0.5
        began = time.monotonic()
        sink.close()
        assert time.monotonic() - began < 2.2


def test_a_slow_broker_slows_a_file_down_and_loses_nothing(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, "belt") as ears:
        sink = Mqtt(Broker("127.0.0.1", broker.port, "belt"), "rle", Events(), lambda: True)
        sink.check()
        broker.process.send_signal(signal.SIGSTOP)
        threading.Timer(1.0, broker.process.send_signal, [signal.SIGCONT]).start()
        one, began = heavy(), time.monotonic()
        for _ in range(1000):
            sink.write(one)
        assert time.monotonic() - began > 0.9
        sink.close()
        assert (sink.sent, sink.dropped) == (1000, 0)
        assert until(lambda: len(ears.got) == 1000)
        assert json.loads(ears.got[-1][1]) == json.loads(json.dumps(line_of(one)))


def test_a_wrong_password_and_the_right_one(stub_model: Maker, clip: Maker, tmp_path: Path) -> None:  # noqa: F811
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "adm1n", "s3cret"], check=True)
    with Mosquitto(tmp_path, f"password_file {passwords}") as broker:
        words = [sys.executable, "-m", "trt_blendmask", "run", str(stub_model()), str(clip(frames=8)), "--mqtt"]
        address = f"@127.0.0.1:{broker.port}/belt/1"
        wrong = run_words([*words, f"mqtt://adm1n:n0tit{address}"])
        assert wrong.returncode == 74
        assert (
            f"Not one frame could be sent to 'mqtt://127.0.0.1:{broker.port}/belt/1': the broker "
            in wrong.stderr.splitlines()[-1]
        )
        assert "8 frames in" in wrong.stdout
        with Subscriber(broker.port, "belt/1", ("adm1n", "s3cret")) as ears:
            right = run_words([*words, f"mqtt://adm1n:s3cret{address}"])
            assert until(lambda: len(ears.got) == 8)
    assert right.returncode == 0
    for said in (wrong, right):
        assert not any(word in said.stdout + said.stderr for word in ("adm1n", "s3cret", "n0tit"))


@pytest.mark.needs("openssl")
def test_tls(stub_model: Maker, clip: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    with Mosquitto(tmp_path, f"certfile {certificate}", f"keyfile {key}") as broker:
        recording = Recording(mqtt=Broker.parse(f"mqtts://127.0.0.1:{broker.port}/belt"))
        distrusted = run(stub_model(), clip(frames=5), recording=recording)
        assert "its certificate is not trusted: self-signed certificate" in distrusted.failures[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        events = Events()
        assert run(stub_model(), clip(frames=5), recording=recording, events=events).failures == ()
        assert events.counters() == {"model": 1, "broker_connected": 1}


def test_a_run_that_is_killed_is_reported_offline(stub_model: Maker, tmp_path: Path) -> None:  # noqa: F811
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, "belt/#") as ears:
        words = [
            sys.executable,
            "-m",
            "trt_blendmask",
            "run",
            str(stub_model()),
            "synthetic:conveyor?live=1&size=64x36",
        ]
        process = subprocess.Popen(
            [*words, "--mqtt", f"mqtt://127.0.0.1:{broker.port}/belt"], stderr=subprocess.DEVNULL
        )
        assert until(lambda: len(ears.of("belt")) > 3, 30)
        process.kill()
        process.wait()
        assert until(lambda: ears.of("belt/state")[-1] == "offline")


def test_after_a_long_outage_it_is_online_again(tmp_path: Path) -> None:
    """More events wait than there is room for."""
    broker, events = Mosquitto(tmp_path), Events()
    sink = Mqtt(Broker("127.0.0.1", broker.port, "belt"), "rle", events, lambda: False)
    sink.check()
    for number in range(mqtt.MOST_EVENTS + 50):
        events.publish("camera_lost", str(number))
    with broker, Subscriber(broker.port, "belt/#") as ears:
        assert until(lambda: ears.of("belt/state") == ["online"])
        with Subscriber(broker.port, "belt/state") as late:
            assert until(lambda: late.got == [("belt/state", b"online", True)])
        sink.close()
        assert until(lambda: ears.of("belt/state") == ["online", "offline"])


def test_a_goodbye_that_finds_no_room_is_said_by_the_broker(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, "belt/state") as ears:
        sink = Mqtt(Broker("127.0.0.1", broker.port, "belt"), "rle", Events(), lambda: False)
        sink.check()
        assert until(lambda: ears.of("belt/state") == ["online"])
        refused = MQTTMessageInfo(0)
        refused.rc = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
        sink._client.publish = lambda *_: refused  # type: ignore[method-assign, assignment]
        sink.close()
        assert until(lambda: not sink._thread.is_alive())
        assert until(lambda: ears.of("belt/state")[1:] == ["offline"])


def test_a_broker_that_is_there_only_after_the_end(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, "belt/#") as ears:
        sink = Mqtt(Broker("127.0.0.1", broker.port, "belt"), "rle", Events(), lambda: False)
        connect, ended = sink._client.connect, threading.Event()

        def slow(*where: object) -> object:
            assert ended.wait(20)
            return connect(*where)  # type: ignore[arg-type]

        sink._client.connect = slow  # type: ignore[assignment, method-assign]
        threading.Timer(0.1, sink._tried.set).start()
        sink.check()
        sink.close()
        ended.set()
        sink._thread.join(10)
        assert not sink._thread.is_alive()
        assert not ears.got
