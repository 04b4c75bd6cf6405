"""Telling systemd how the server does: ready, stopping, and that the event loop still turns (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping

import anyio
import structlog

log = structlog.get_logger()


class Notifier:
    """Sends to the socket that NOTIFY_SOCKET names. Without one it does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An abstract address begins with NUL, which no environment can hold.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._limit = _limit(environment)

    def send(self, **fields: str) -> None:
        """Send `fields`, such as READY="1". What cannot be sent must not stop a server."""
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(self._address)
                sender.sendall(message.encode())
        except OSError as error:
            log.warning("systemd cannot be told", what=message, error=error.strerror)

    async def keep_alive(self) -> None:
        """Send WATCHDOG=1, twice as often as systemd asks for, as long as this loop turns; return if nobody asks."""
        while self._limit is not None:
            self.send(WATCHDOG="1")
            await anyio.sleep(self._limit / 2)


def _limit(environment: Mapping[str, str]) -> float | None:
    """The seconds after which systemd ends a silent process (sd_watchdog_enabled(3)); None when it never does."""
    meant_for = environment.get("WATCHDOG_PID", str(os.getpid()))
    limit = environment.get("WATCHDOG_USEC", "")
    return int(limit) / 1e6 if limit.isdecimal() and int(limit) and meant_for == str(os.getpid()) else None
