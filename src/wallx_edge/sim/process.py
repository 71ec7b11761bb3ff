"""SimProcess: an emulated robot in a process of its own, for demos and tests."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from wallx_edge.errors import ConfigError, DeviceError


class SimProcess:
    """Starts ``python -m wallx_edge.sim`` and ends it.

    The process also ends when this one does, however that happens: it watches the pipe between them.
    Not thread-safe.
    """

    def __init__(
        self,
        robot: str = "so101",
        *,
        link: str | Path | None = None,
        log: str | Path | None = None,
        calibration: str | Path | None = None,
        seed: int = 0,
        drop: float = 0.0,
        corrupt: float = 0.0,
        options: Sequence[str] = (),
        deadline: float = 30.0,
    ) -> None:
        """Starts nothing yet.

        Args:
            robot: as ``wallx-edge sim`` knows it.
            link: symbolic link to make for the port.
            log: file of JSON lines.
            calibration: of the emulated unit.
            seed: of the injected faults.
            drop: chance of an answer to be lost.
            corrupt: chance of an answer to be damaged.
            options: further arguments of ``wallx-edge sim``.
            deadline: how long start, command or orderly stop may take, each [s].
        """
        self._command = [sys.executable, "-m", "wallx_edge.sim", robot, "--json", "--until-stdin-closes"]
        self._command += ["--seed", str(seed), "--drop", str(drop), "--corrupt", str(corrupt)]
        for option, value in (("--link", link), ("--log", log), ("--calibration", calibration)):
            if value is not None:
                self._command += [option, str(value)]
        self._command += options
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: Any = None
        self._pending = b""
        self._ready: dict[str, Any] = {}

    def __enter__(self) -> SimProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the process and blocks until the port answers.

        Raises:
            DeviceError: it ended or was not ready in time; the message carries its standard error.
        """
        if self._process is not None:
            raise DeviceError("the emulated robot's process was started before; make another SimProcess")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
        )
        try:
            self._ready = self._read_report("to become ready")
        except BaseException:
            self.kill()
            raise

    @property
    def port(self) -> str:
        """Path of the serial port."""
        return str(self._ready["port"])

    @property
    def is_realtime(self) -> bool:
        """Whether the process was permitted SCHED_FIFO."""
        return bool(self._ready["realtime"])

    @property
    def pid(self) -> int:
        """Process id."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def send(self, command: str) -> None:
        """Sends a command (``hand 3 0.5``, ``fault drop all 0.1`` ...) and blocks until it has taken effect.

        Raises:
            ConfigError: the command is refused; the robot goes on.
            DeviceError: the process has ended or does not answer.
        """
        process = self._running()
        assert process.stdin is not None
        if process.stdin.closed:
            raise self._failure(f"to take {command!r}")
        try:
            process.stdin.write(command.strip().encode() + b"\n")
        except OSError as error:
            raise self._failure(f"to take {command!r}") from error
        report = self._read_report(f"to take {command!r}")
        if not report["ok"]:
            raise ConfigError(str(report["error"]))

    def fault(self, kind: str, id: int | None = None, value: float | None = None) -> None:
        """Makes something go wrong (``wallx_edge.sim.FAULTS``) and blocks until it has.

        Args:
            kind: name of the fault.
            id: of one drive; None: every drive, or the line.
            value: in the fault's unit; None: its preset.

        Raises:
            ConfigError, DeviceError: as :meth:`send`.
        """
        words = [kind, "all" if id is None else str(id), *([] if value is None else [repr(value)])]
        self.send(f"fault {' '.join(words)}")

    def clear(self, kind: str, id: int | None = None) -> None:
        """Ends a fault and blocks until it has; raises as :meth:`send`."""
        self.send(f"clear {kind} {'all' if id is None else id}")

    def kill(self) -> None:
        """Ends the process at once with SIGKILL: port and link are not cleaned up after. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def stop(self) -> None:
        """Ends the process in order, with the log's last line; kills it when it does not. Idempotent."""
        process = self._process
        if process is None:
            return
        if process.poll() is None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._deadline)
        self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DeviceError("the emulated robot's process is not started")
        return self._process

    def _close(self) -> None:
        process = self._running()
        for file in (process.stdin, process.stdout, self._stderr):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()

    def _failure(self, what: str) -> DeviceError:
        process = self._running()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)  # its end may be a moment behind its closed pipe
        ended = f"ended with code {process.returncode}" if process.returncode is not None else "did not answer"
        text = ""
        if not self._stderr.closed:
            self._stderr.seek(0)
            text = self._stderr.read().decode(errors="replace").strip()
        return DeviceError(
            f"the emulated robot's process {ended} where it was expected {what} within {self._deadline:g} s"
            + (f": {text}" if text else "")
        )

    def _read_report(self, what: str) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None
        end = time.monotonic() + self._deadline
        while b"\n" not in self._pending:
            if process.stdout.closed:
                raise self._failure(what)
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                raise self._failure(what)
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        report = json.loads(line)
        assert isinstance(report, dict)
        return report
