"""The text that names an MQTT broker."""

from __future__ import annotations

import sys

import pytest

from trt_blendmask.errors import InputMissingError, SourceUnavailableError, UsageError
from trt_blendmask.runtime.events import Events
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.recording.mqtt import Mqtt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://host/belt", Broker("host", 1883, "belt")),
        ("MQTT://10.0.0.5:1884/a/b/", Broker("10.0.0.5", 1884, "a/b")),
        ("mqtts://host/belt", Broker("host", 8883, "belt", True)),
        ("mqtt://[::1]:99/t", Broker("::1", 99, "t")),
        ("mqtt://u%40x:p%2Fw%3Az@host/t%20u", Broker("host", 1883, "t u", False, "u@x", "p/w:z")),
        ("mqtt://only@host/t", Broker("host", 1883, "t", False, "only")),
    ],
)
def test_what_is_taken(text: str, expected: Broker) -> None:
    assert Broker.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "host/t", "http://u:s3cret@host/t", "s3cret", "mqtt://", "mqtt://host", "mqtt://host/", "mqtt://u:s3cret@host",
        "mqtt://host/a/#", "mqtt://host/a/+/b", "mqtt://host:0/t", "mqtt://host:70000/t", "mqtt://host:x/t",
        "mqtt://u:s3/cret@host/t", "mqtt://u:s3cret@ho st/t", "mqtt://u:s3cret@host/t?x=1", "mqtt://host/a%00b",
        "u:s3cret://host/t", "mqtt://u:s3cret@host/" + "x" * 70_000,
    ],
)  # fmt: skip
def test_what_is_refused_and_tells_no_password(text: str) -> None:
    with pytest.raises(UsageError, match=r"Expected .*mqtt|Expected a topic") as caught:
        Broker.parse(text)
    assert "s3" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_credentials_are_shown_nowhere() -> None:
    broker = Broker.parse("mqtts://adm1n:s3cret@host:1/belt/7")
    assert broker.name == "mqtts://host:1/belt/7"
    assert not any(word in repr(broker) for word in ("s3cret", "adm1n"))


def test_the_address_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER", "mqtt://u:p@host/t")
    assert Broker.parse("env:BROKER") == Broker("host", 1883, "t", False, "u", "p")
    with pytest.raises(InputMissingError, match="variable NOBODY, but it is not set: export NOBODY="):
        Broker.parse("env:NOBODY")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(SourceUnavailableError, match=r"pip install 'trt-blendmask\[mqtt\]'"):
        Mqtt(Broker("host", 1883, "belt"), "rle", Events(), lambda: False)
