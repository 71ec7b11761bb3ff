"""SafeStop: starts the program that stops a robot when this one dies or stalls."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wallx_edge.buses import BusConfig
from wallx_edge.embodiment import Embodiment, JointCalibration
from wallx_edge.errors import DeviceError

__all__ = [
    "Watcher",
    "daemon_socket_path",
    "estop_socket_path",
    "find_socket",
    "safe_stop_program",
    "stop_file_path",
    "write_stop_file",
]

SERVICE_FOLDER = Path("/run/wallx-edge")  # RuntimeDirectory= of the unit
START_TIMEOUT = 5.0  # until the watcher says that it watches [s]
LEAVE_TIMEOUT = 2.0  # until it has gone [s]


def safe_stop_program() -> Path:
    """The program ``safe-stop``: beside this Python's programs, or on the path.

    Raises:
        DeviceError: it is in neither place.
    """
    beside = Path(sysconfig.get_path("scripts")) / "safe-stop"
    if beside.is_file():
        return beside
    found = shutil.which("safe-stop")
    if found is None:
        raise DeviceError(f"safe-stop is neither {beside} nor on the path; install wallx-edge again")
    return Path(found)


def _runtime_folders() -> list[Path]:
    """Where a program of this user's keeps sockets and stop files: the first is taken, the others are looked at."""
    folders = [SERVICE_FOLDER] if SERVICE_FOLDER.is_dir() else []
    temporary = Path(tempfile.gettempdir()) / f"wallx-edge-{os.getuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute() and Path(runtime).is_dir():
        return [Path(runtime) / "wallx-edge", *folders, temporary]
    # a service has no XDG_RUNTIME_DIR, and a folder of its own
    is_ours = bool(folders) and SERVICE_FOLDER.stat().st_uid == os.getuid()
    return [*folders, temporary] if is_ours else [temporary, *folders]


def _file_name(port: str) -> str:
    return f"{Path(port).name[:24]}-{hashlib.sha256(port.encode()).hexdigest()[:8]}"


def stop_file_path(port: str) -> Path:
    """Where the stop file of the robot on a port lies.

    In ``$XDG_RUNTIME_DIR/wallx-edge``, without it in ``/run/wallx-edge`` where that is this user's, as in a service,
    or else in a folder of this user's in the temporary folder; named after the port.
    """
    return _runtime_folders()[0] / f"{_file_name(port)}.stop.json"


def estop_socket_path(port: str) -> Path:
    """Where the program that drives the robot on a port listens for an e-stop: beside its stop file."""
    return stop_file_path(port).with_suffix(".estop")


def daemon_socket_path(port: str) -> Path:
    """Where the daemon of the robot on a port takes requests: beside its stop file."""
    return stop_file_path(port).with_suffix(".sock")


def find_socket(path: Path) -> Path:
    """Where a client looks: a socket of this name in any of the folders, such as a service's; else the path itself.

    Args:
        path: as a program of this user's would make it.
    """
    found = (folder / path.name for folder in _runtime_folders())
    return next((candidate for candidate in found if os.access(candidate, os.F_OK)), path)


def write_stop_file(embodiment: Embodiment, calibration: Sequence[JointCalibration], bus: BusConfig) -> Path:
    """Writes what ``safe-stop`` must know of a robot; its path. Replaces an older one at once.

    Raises:
        DeviceError: the file cannot be written, or its folder belongs to somebody else.
    """
    path = stop_file_path(bus.port)
    content = {
        "name": embodiment.name,
        "motor_family": embodiment.motor_family,
        "bus": {
            "kind": bus.kind,
            "port": bus.port,
            "baud_rate": bus.baud_rate,
            "bit_rate": bus.bit_rate,
            "data_bit_rate": bus.data_bit_rate,
            "interface": bus.interface,
        },
        "joints": [
            {"name": joint.name, "id": unit.id, "mode": joint.mode.name}
            for joint, unit in zip(embodiment.joints, calibration, strict=True)
        ],
    }
    part = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise PermissionError(f"{path.parent} belongs to another user")
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DeviceError(f"the stop file {path} cannot be written: {error}; set XDG_RUNTIME_DIR") from error
    return path


class Watcher:
    """A running ``safe-stop --watch``: in a session of its own, so that it outlives this program."""

    def __init__(self, stop_file: Path, bus: int, heartbeat: int) -> None:
        """Starts it, and waits until it watches.

        Args:
            stop_file: of the robot.
            bus: file descriptor of the open bus.
            heartbeat: file descriptor of the loop's heartbeat.

        Raises:
            DeviceError: it is not installed, or does not start.
        """
        program = str(safe_stop_program())
        reading, self._writing = os.pipe()
        command = [program, "--watch", str(stop_file), str(bus), str(heartbeat), str(reading)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(bus, heartbeat, reading),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._writing)
            raise DeviceError(f"{program} does not start: {error}; install wallx-edge again") from error
        finally:
            os.close(reading)
        assert self._process.stdout is not None
        is_watching = False
        try:
            ready, _, _ = select.select([self._process.stdout], [], [], START_TIMEOUT)
            is_watching = bool(ready) and self._process.stdout.readline() == b"watching\n"
        finally:
            if not is_watching:  # nor may it stay after a Ctrl-C
                self.leave()
        if not is_watching:
            raise DeviceError(f"{program} does not watch, exit code {self._process.returncode}: see its message")

    @property
    def is_running(self) -> bool:
        """Whether it still watches. Does not wait."""
        return self._writing >= 0 and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def leave(self) -> None:
        """Ends it without stopping anything. Blocks until it has gone. Idempotent."""
        if self._writing < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writing, b"q")
        os.close(self._writing)
        self._writing = -1
        try:
            self._process.wait(LEAVE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
