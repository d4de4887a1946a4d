"""A real MQTT broker (Debian's mosquitto) on a port of its own, and somebody who subscribes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from .conftest import until


class Mosquitto:
    """Attributes: port; more: further lines of its configuration."""

    def __init__(self, folder: Path, *more: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", *more]
        if os.getuid() == 0:
            lines.append("user root")  # it would become another user, who may not read what is in `folder`
        if not any(line.startswith("password_file") for line in more):
            lines.append("allow_anonymous true")
        self._config.write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Mosquitto:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(["mosquitto", "-c", str(self._config)], stderr=subprocess.DEVNULL)
        assert until(self._listens), "mosquitto does not listen"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Subscriber:
    """Attributes: got: (topic, payload, retained), in order."""

    def __init__(self, port: int, topic: str, user: tuple[str, str] | None = None) -> None:
        self.got: list[tuple[str, bytes, bool]] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        if user:
            self._client.username_pw_set(*user)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, 1)
        self._client.on_subscribe = lambda *_: setattr(self, "ready", True)
        self._client.on_message = lambda _c, _d, m: self.got.append((m.topic, m.payload, m.retain))
        self.ready = False
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert until(lambda: self.ready), "nobody let us subscribe"

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def of(self, topic: str) -> list[Any]:
        """Payloads of one topic: JSON values where they are JSON, else texts."""
        payloads = [payload for name, payload, _ in list(self.got) if name == topic]
        return [json.loads(one) if one[:1] == b"{" else one.decode() for one in payloads]
