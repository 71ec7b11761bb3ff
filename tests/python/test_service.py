"""The daemon as a service: what the service manager hears, the unit, and where clients find its sockets."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from daemons import daemon
from live_arm import DEADLINE, LiveArm
from wallx_edge.cli import main
from wallx_edge.daemon import Daemon, Notifier
from wallx_edge.daemon.unit import installed_unit, unit_path
from wallx_edge.safe_stop import daemon_socket_path, estop_socket_path

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Service:
    """The socket of a service manager."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(DEADLINE)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.heard: list[str] = []

    def wait_until(self, wanted: str) -> None:
        while not any(wanted in message for message in self.heard):
            self.heard.append(self.socket.recv(4096).decode())

    def drain(self) -> list[str]:
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            self.socket.settimeout(DEADLINE)
            return found


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_hears_that_it_is_ready_lives_and_stops(
    arm: LiveArm, tmp_path: Path, is_abstract: bool
) -> None:
    path = f"@wallx-edge-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    service = Service(path)
    try:
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
        with daemon(arm, environment) as running:
            service.wait_until("READY=1")
            assert not any("WATCHDOG" in message for message in service.heard[:1])
            service.heard.clear()
            service.wait_until("WATCHDOG=1")
            service.heard.clear()
            service.wait_until("WATCHDOG=1")
            running.send(signal.SIGTERM)
            service.wait_until("STOPPING=1")
            assert running.process.wait(DEADLINE) == 0
    finally:
        service.socket.close()


def test_the_watchdog_is_fed_only_when_the_loop_has_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    service = Service(path)
    try:
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "8", "WATCHDOG_PID": str(os.getpid())}
        notifier = Notifier(environment)
        for count in (1, 1, 1, 2, 2):
            notifier.feed(count)
            time.sleep(0.001)
        assert service.drain() == ["WATCHDOG=1"] * 2
        for other in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"NOTIFY_SOCKET": ""}):
            silent = Notifier({**environment, **other})
            assert silent.period is None
            silent.feed(1)
        assert service.drain() == []
    finally:
        service.socket.close()
    Notifier(environment).ready("nobody listens any more")


def test_a_stalled_loop_starves_the_watchdog(tmp_path: Path, arm: LiveArm) -> None:
    path = str(tmp_path / "notify")
    service = Service(path)
    try:
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "80000"})
        with Daemon(arm.config, notifier=notifier) as running:
            service.wait_until("WATCHDOG=1")
            running.robot.loop.stop()
            service.drain()
            time.sleep(0.3)  # more than three meals; one may have been under way
            assert service.drain().count("WATCHDOG=1") <= 1
    finally:
        service.socket.close()


def test_the_unit_is_in_the_package_and_names_installed_programs(tmp_path: Path, capsys: Capture) -> None:
    assert unit_path().is_file()
    assert main(["daemon", "--unit"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(installed_unit())
    for key in ("Type=notify", "WatchdogSec=2", "RuntimeDirectory=wallx-edge", "Restart=on-failure"):
        assert key in printed
    programs = [line.split("=", 1)[1].split()[0] for line in printed.splitlines() if line.startswith("Exec")]
    assert [Path(program).name for program in programs] == ["wallx-edge", "safe-stop"]
    assert all(Path(program).is_file() for program in programs)
    assert main(["daemon"]) == 1


def test_systemd_verifies_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "wallx-edge@.service"
    unit.write_text(installed_unit())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "wallx-edge" in line]
    assert done.returncode == 0, done.stderr
    assert complaints == []


def test_the_stop_file_that_the_unit_names_is_there_and_works(arm: LiveArm, tmp_path: Path) -> None:
    from wallx_edge.safe_stop import safe_stop_program

    with daemon(arm, os.environ) as running:
        running.tell("stop")
        assert running.process.wait(DEADLINE) == 0
    link = tmp_path / "wallx-edge" / "robot.stop.json"
    assert link.is_symlink()
    done = subprocess.run([safe_stop_program(), str(link)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "so101" in done.stdout


def test_sockets_of_a_service_are_found_by_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wallx_edge import safe_stop

    service = tmp_path / "run"
    service.mkdir()
    monkeypatch.setattr(safe_stop, "SERVICE_FOLDER", service)
    # a service: no XDG_RUNTIME_DIR, a folder of its own
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    made = daemon_socket_path("/dev/ttyACM0")
    assert made.parent == service
    made.touch()
    # a client of the same user, in a login session
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = daemon_socket_path("/dev/ttyACM0")
    assert own.parent == tmp_path / "wallx-edge"
    assert safe_stop.find_socket(own) == made
    absent = estop_socket_path("/dev/ttyACM0")
    assert safe_stop.find_socket(absent) == absent
