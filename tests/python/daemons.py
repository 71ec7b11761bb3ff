"""Daemons in processes of their own, for tests that kill, stop and question them."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from live_arm import LiveArm, wait_for
from wallx_edge.daemon import tell
from wallx_edge.errors import DeviceError
from wallx_edge.safe_stop import daemon_socket_path

PROGRAM = [sys.executable, "-c", "import sys; from wallx_edge.cli import main; sys.exit(main())"]


class DaemonProcess:
    """A running `wallx-edge daemon`."""

    def __init__(self, arm: LiveArm, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.path = daemon_socket_path(arm.config.bus.port)

    def tell(self, verb: str, text: str = "") -> dict[str, Any]:
        return tell(self.path, verb, text, 20.0)

    def status(self) -> dict[str, Any]:
        return self.tell("status")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(DeviceError):
            return self.status()["state"] == "idle"
        return False

    def chunks(self) -> int:
        session = self.status()["session"]
        return int(session["chunks"]) if session else 0

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextlib.contextmanager
def daemon(arm: LiveArm, environment: Mapping[str, str], code: str = "") -> Iterator[DaemonProcess]:
    """Starts one and waits until it answers; `code` is run before it, in its process."""
    log = arm.config.path.parent / "daemon.txt"
    program = [*PROGRAM[:2], code + "\n" + PROGRAM[2]]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program, "daemon", str(arm.config.path)], stdout=output, stderr=output, env=dict(environment)
        )
    try:
        running = DaemonProcess(arm, process, log)
        wait_for(running.is_ready, "the daemon's first answer")
        yield running
    finally:
        process.kill()
        process.wait()
