"""Results as MQTT messages: for each frame what would be its line of JSON; the events; whether the run is there."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_blendmask.errors import OutputError, SourceUnavailableError
from trt_blendmask.layout import counted
from trt_blendmask.runtime.events import Event, Events
from trt_blendmask.runtime.recording.broker import Broker
from trt_blendmask.runtime.recording.lines import line_of
from trt_blendmask.runtime.result import FrameResult
from trt_blendmask.runtime.sources.reasons import loss_of

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0  # between two tries
MOST_UNDER_WAY = 16  # frames that wait for a slow line; a broker that hangs must not fill the memory
MOST_EVENTS = 100  # that wait for a broker that is away
_ALIVE_S = 10  # a broker that is silent for so long is asked, and left if it does not answer
_FIRST_TRY_S = 3.0  # waited for before the first frame, so that a short file loses none
_JITTER = (0.8, 1.2)


class Mqtt:
    """Publishes while there is a broker, and tries for ever to reach it while there is none.

    A frame goes out at most once (QoS 0): what finds no broker, or a line that is full, is counted and left out.
    Events go out at least once (QoS 1), late if need be. The topic's "/state" is retained: "online", and "offline" at
    the end or, by the broker itself (last will), when the run was killed or cut off.

    Attributes:
        sent, dropped: frames so far.
    """

    draws = False

    def __init__(self, broker: Broker, masks: str, events: Events, waits: Callable[[], bool]) -> None:
        """`masks`: as in the JSON lines. `waits`: whether a full line holds up the run, as for a file, or costs frames;
        asked each time, as an address tells with its first frame what it is.

        Raises:
            SourceUnavailableError: the library paho-mqtt is not installed.
        """
        self.name = broker.name
        self.written: list[Path] = []
        self.sent = self.dropped = 0
        self._broker, self._masks, self._events, self._waits = broker, masks, events, waits
        self._client = _client(broker)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._under_way: deque[MQTTMessageInfo] = deque()
        self._connected, self._closing = threading.Event(), threading.Event()
        self._greeting = threading.Lock()  # whoever says hello knows of no goodbye yet
        self._tried, self._over = threading.Event(), threading.Event()
        self._reason, self._told_reason, self._told_dropped = "", "", 0
        self._thread = threading.Thread(target=self._stay_connected, name="mqtt", daemon=True)

    def check(self) -> None:
        """Look for the broker; one that is away may come."""
        self._unsubscribe = self._events.subscribe(self._pass_on)
        self._thread.start()
        self._tried.wait(_FIRST_TRY_S)

    def write(self, result: FrameResult) -> None:
        if not self._has_room():
            self.dropped += 1
            return
        text = json.dumps(line_of(result, self._masks), ensure_ascii=False, allow_nan=False)
        self._under_way.append(self._client.publish(self._broker.topic, text.encode("utf-8", "backslashreplace")))
        self.sent += 1

    def close(self) -> None:
        """Wait a moment for what is under way, and say goodbye.

        Raises:
            OutputError: not one frame could be sent.
        """
        self._unsubscribe()
        with self._greeting:
            self._closing.set()
        if self._connected.is_set():
            self._say_goodbye()
        self._thread.join(0.3)
        self._forget_what_is_out()
        self.dropped += len(self._under_way)
        self.sent -= len(self._under_way)
        self._under_way.clear()
        if self.dropped and not self.sent:
            raise OutputError(f"Not one frame could be sent to '{self.name}': {self._reason or 'the broker left'}")
        if self.dropped:
            text = f"{self.name}: {self.dropped} of {self.sent + self.dropped} frames were not sent"
            self._events.publish("broker_missed", text, {"output": self.name, "frames": self.dropped})

    def _say_goodbye(self) -> None:
        """Without a word where the broker does not take it: then it says so itself, by the last will."""
        goodbye = self._client.publish(f"{self._broker.topic}/state", b"offline", 1, True)
        with contextlib.suppress(RuntimeError, ValueError):  # the broker left meanwhile, or too many events wait
            goodbye.wait_for_publish(1.0)
            if goodbye.is_published():
                self._client.disconnect()
                return
        line = self._client.socket()
        with contextlib.suppress(OSError):  # it broke just now
            if isinstance(line, socket.socket):
                socket.socket.shutdown(line, socket.SHUT_RDWR)  # that of TLS is not for two threads

    def _has_room(self) -> bool:
        while self._connected.is_set() and not self._closing.is_set():
            self._forget_what_is_out()
            if len(self._under_way) < MOST_UNDER_WAY:
                return True
            if not self._waits():
                break
            time.sleep(0.01)
        return False

    def _forget_what_is_out(self) -> None:
        while self._under_way:
            try:
                if not self._under_way[0].is_published():
                    return
            except (RuntimeError, ValueError):  # the line broke first
                self.sent, self.dropped = self.sent - 1, self.dropped + 1
            self._under_way.popleft()

    def _pass_on(self, event: Event) -> None:
        text = json.dumps(asdict(event), ensure_ascii=False)
        self._client.publish(f"{self._broker.topic}/events", text.encode("utf-8", "backslashreplace"), 1)

    def _stay_connected(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closing.is_set():
            began_s = time.monotonic()
            reason, was_connected = self._connect_once()
            if self._closing.is_set():
                return
            pause_s = FIRST_PAUSE_S if was_connected else pause_s
            if was_connected or reason != self._told_reason:
                self._told_reason = reason
                text = f"{self.name}: no broker ({reason}); trying again, frames are left out meanwhile"
                self._events.publish("broker_lost", text, {"output": self.name, "reason": reason})
            self._tried.set()
            rest_s = pause_s * random.uniform(*_JITTER) - (0 if was_connected else time.monotonic() - began_s)
            self._closing.wait(max(rest_s, 0.1))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _connect_once(self) -> tuple[str, bool]:
        """Connect and stay so while it lasts; why it ended, and whether there was a connection."""
        self._over.clear()
        self._reason = ""
        try:
            self._client.connect(self._broker.host, self._broker.port, _ALIVE_S)
        except (OSError, ValueError) as error:
            self._reason = _spell(error)
            return self._reason, False
        self._client.loop_start()
        self._over.wait()
        self._client.loop_stop()
        was_connected = self._connected.is_set()
        self._connected.clear()
        return self._reason or "the line broke", was_connected

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._reason = f"the broker says: {reason}"
            return
        with self._greeting:
            if self._closing.is_set():  # it took too long
                client.disconnect()
                return
            client.publish(f"{self._broker.topic}/state", b"online", 0, True)  # QoS 1 would queue behind old events
            self._connected.set()
        self._told_reason = ""
        missed, self._told_dropped = self.dropped - self._told_dropped, self.dropped
        text = f"{self.name}: connected" + (f"; {counted(missed, 'frame')} not sent" if missed else "")
        self._tried.set()
        self._events.publish("broker_connected", text, {"output": self.name, "frames_missed": missed})

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._reason = self._reason or str(reason)
        self._over.set()


def _client(broker: Broker) -> Client:
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise SourceUnavailableError(
            "Expected the package paho-mqtt, version 2 or later, for --mqtt, and it is not installed: "
            "pip install 'trt-blendmask[mqtt]'"
        ) from error
    client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
    client.connect_timeout = 5.0
    client.max_queued_messages_set(MOST_EVENTS)
    client.will_set(f"{broker.topic}/state", b"offline", 1, True)
    if broker.user:
        client.username_pw_set(broker.user, broker.password or None)
    if broker.tls:
        client.tls_set_context(ssl.create_default_context())  # trusts what the system does, or SSL_CERT_FILE
    return client


def _spell(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return loss_of(error).text
