"""Notify: tells systemd that the daemon is ready, and that it lives as long as its loop counts."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Speaks sd_notify(3) to the socket of ``NOTIFY_SOCKET``; without one, as in a terminal, it says nothing.

    The watchdog is fed only by a loop that has counted on since the last time: a loop that stands, or an interpreter
    that hangs, lets the service manager end this program. Not thread-safe.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        is_watched = bool(self._address) and is_ours and microseconds.isdigit() and int(microseconds) > 0
        self.period = int(microseconds) / 1e6 / 4 if is_watched else None  # between two meals; None: not watched [s]
        self._fed_at = -float("inf")
        self._count = -1

    def ready(self, status: str) -> None:
        """The robot is connected and the socket listens."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The robot is brought to rest."""
        self._send("STOPPING=1")

    def status(self, status: str) -> None:
        """A line for ``systemctl status``."""
        self._send(f"STATUS={status}")

    def feed(self, count: int) -> None:
        """Feeds the watchdog when its time has come, unless the loop stands. Call it often.

        Args:
            count: the loop's ticks so far.
        """
        if self.period is None or time.monotonic() < self._fed_at + self.period or count == self._count:
            return
        self._fed_at, self._count = time.monotonic(), count
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)  # a manager that does not listen is not waited for
            line.sendto(message.encode(), self._address)
