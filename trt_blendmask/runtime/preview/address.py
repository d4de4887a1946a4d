"""Where the page is served, and who may see it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field

from trt_blendmask.errors import UsageError
from trt_blendmask.redact import HIDDEN
from trt_blendmask.runtime.environment import looked_up

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
LEAST_TOKEN = 8


@dataclass(frozen=True)
class Serving:
    """Where the preview page is served.

    Attributes:
        host, port: to listen on; port 0 takes a free one.
        token: who knows it may look and control; "": whoever is on this machine may.
    """

    host: str
    port: int
    token: str = field(default="", repr=False)

    @staticmethod
    def parse(text: str, token: str = "") -> Serving:
        """Read `[HOST:]PORT`. Without HOST it is this machine alone, and with a token all of its networks.

        Args:
            token: itself, or env:NAME: the environment variable that holds it, which `ps` does not show.

        Raises:
            UsageError: neither, or a host that others reach without a token. InputMissingError: no such variable.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        is_port = port.isascii() and port.isdecimal() and int(port) < 65536
        if not is_port or any(c.isspace() or c == "@" for c in host):
            shown = HIDDEN if "@" in text else text
            raise UsageError(f"Expected [HOST:]PORT for the preview page, as 8080 or 0.0.0.0:8080, got '{shown}'.")
        token = _checked(looked_up(token, "the token"))
        serving = Serving(host or (EVERYWHERE if token else LOOPBACK), int(port), token)
        if not token and not serving.is_local:
            raise UsageError(
                f"Expected a token where others can reach the preview page, but '{serving.host}' came without: "
                "add --token env:NAME, or serve this machine alone: --serve " + port
            )
        return serving

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, port: int) -> str:
        """What to type into a browser on this machine; without the token."""
        host = {EVERYWHERE: socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def answers_to(self, host: str) -> bool:
        """Whether a request may be addressed to `host` (a Host header): an address, or a name that is ours. Any other
        name may have been made to point here by the owner of a page that a browser on this network looks at.
        """
        name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
        own = socket.gethostname().lower()
        if name.lower() in {"localhost", self.host.lower(), own, f"{own.partition('.')[0]}.local"}:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _checked(token: str) -> str:
    if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UsageError(f"Expected a token of {LEAST_TOKEN} or more letters and digits, got one of {len(token)}.")
    return token
