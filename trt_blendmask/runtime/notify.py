"""What systemd wants to hear of a service of `Type=notify`; nothing happens elsewhere. See sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notify:
    """Tells the service manager: READY, WATCHDOG (as long as `alive` is called), STOPPING."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
        wanted = usec.isdecimal() and pid == str(os.getpid())
        self._every_s = int(usec) / 3e6 if wanted else float("inf")
        self._told_s = time.monotonic()

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self) -> None:
        """To be called often; passed on three times per watchdog interval."""
        if time.monotonic() - self._told_s >= self._every_s:
            self._told_s = time.monotonic()
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)  # a manager that does not listen must not stop the camera
                to.sendto(message.encode(), self._address)
