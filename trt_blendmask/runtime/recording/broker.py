"""Which MQTT broker, and which topic: the text that the user gives."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from trt_blendmask.errors import UsageError
from trt_blendmask.redact import HIDDEN, HOST, split_authority
from trt_blendmask.runtime.environment import looked_up

FORM = "mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC"
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LONGEST_TOPIC = 65_000  # bytes; MQTT's own limit less what we append


@dataclass(frozen=True)
class Broker:
    """Where messages go.

    Attributes:
        host, port: of the broker. topic: of the frames; "/events" and "/state" are appended for the others.
        tls: whether the line is encrypted. user, password: "" where none is needed.
    """

    host: str
    port: int
    topic: str
    tls: bool = False
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """As it may be shown: without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}/{self.topic}"

    @staticmethod
    def parse(text: str) -> Broker:
        """Read `FORM`, or `env:NAME`, the environment variable that holds it.

        Raises:
            UsageError: another form. InputMissingError: there is no such variable.
        """
        scheme, mark, rest = looked_up(text, "the address of an MQTT broker").partition("://")
        scheme = scheme.lower()
        if not mark or scheme not in _PORTS:
            shown = scheme if mark and re.fullmatch(r"[a-z0-9+.-]{1,16}", scheme) else HIDDEN
            raise UsageError(f"Expected {FORM}, got '{shown}://{HIDDEN}'. Write mqtt:// or mqtts:// first.")
        authority, path = split_authority(rest)
        user_part, _, address = authority.rpartition("@")
        user, _, password = user_part.partition(":")
        match = HOST.fullmatch(address)
        port = int(match[2][1:]) if match and match[2] else _PORTS[scheme]
        if match is None or not 0 < port < 65536 or "@" in path or "?" in path:
            raise UsageError(
                f"Expected {FORM}, got '{scheme}://{HIDDEN}'. In a user name or password, write / as %2F, ? as %3F, "
                "# as %23, @ as %40 and : as %3A."
            )
        topic = unquote(path).strip("/")
        if not topic or re.search(r"[+#\x00-\x1f\x7f]", topic) or len(topic.encode()) > _LONGEST_TOPIC:
            raise UsageError(
                f"Expected a topic to publish to, without + and #, after '{scheme}://{address}/': add one, as in "
                f"{scheme}://{address}/belt/1"
            )
        return Broker(match[1].strip("[]"), port, topic, scheme == "mqtts", unquote(user), unquote(password))
