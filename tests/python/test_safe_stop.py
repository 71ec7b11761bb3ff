"""A stop that outlives the process: what the motors do when their owner is killed, stopped, or asked to leave."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from live_arm import LiveArm, play_sweep, wait_for
from wallx_edge.errors import DeviceError, SafetyStop
from wallx_edge.robot import Robot
from wallx_edge.safe_stop import Watcher, safe_stop_program, stop_file_path
from wheel_line import ARM, WHEEL, WheelLine

FOLDER = Path(__file__).parent
GOAL, SPEED, TORQUE = 42, 46, 40
ONE_RAD_PER_S = 4096 / 6.283185307

KILLED = """
import sys, time
from wallx_edge.robot import Robot
sys.path.insert(0, sys.argv[2])
from live_arm import play_sweep
with Robot.connect(sys.argv[1]) as robot, robot.enabled():
    play_sweep(robot, seconds=30.0)
    print("moving", flush=True)
    time.sleep(60)
"""


@contextmanager
def child(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A Python process and the file of its (and its watcher's) standard error."""
    log = Path(os.environ["SAFE_STOP_LOG"])
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(autouse=True)
def own_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SAFE_STOP_LOG", str(tmp_path / "stderr.txt"))


def read_until(stream: IO[bytes] | None, wanted: str) -> str:
    assert stream is not None
    for line in stream:
        if re.search(wanted, line.decode()):
            return line.decode().strip()
    raise AssertionError(f"the program ended before it printed {wanted!r}")


def is_rolling(line: WheelLine) -> bool:
    return abs(line.word(WHEEL, SPEED) - ONE_RAD_PER_S) < 5


def test_a_killed_owner_leaves_the_arm_holding_and_the_port_free(arm: LiveArm) -> None:
    with child("-c", KILLED, str(arm.config.path), str(FOLDER)) as (process, log):
        read_until(process.stdout, "moving")
        process.kill()
        wait_for(lambda: "has died" in log.read_text(), "the watcher's message")
    with Robot.connect(arm.config) as robot:  # the watcher has let go of the port
        robot.state()
    arm.story().check_held()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owners_wheels_stop_and_its_arm_keeps_its_goal(number: signal.Signals) -> None:
    with WheelLine() as line, child(str(FOLDER / "drive_cart.py"), line.port) as (process, log):
        wait_for(lambda: is_rolling(line), "rolling")
        goal = line.word(ARM, GOAL)
        process.send_signal(number)
        wait_for(lambda: line.word(WHEEL, SPEED) == 0, "the wheels' stop")
        wait_for(lambda: "has died" in log.read_text(), "the watcher's message")
        assert line.word(ARM, GOAL) == goal
        assert line.registers[ARM][TORQUE] == line.registers[WHEEL][TORQUE] == 1


def test_a_stopped_owners_wheels_stop_and_it_is_shut_out_when_it_wakes() -> None:
    with WheelLine() as line, child(str(FOLDER / "drive_cart.py"), line.port) as (process, log):
        wait_for(lambda: is_rolling(line), "rolling")
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: line.word(WHEEL, SPEED) == 0, "the wheels' stop")
        wait_for(lambda: "has stalled" in log.read_text(), "the watcher's message")
        process.send_signal(signal.SIGCONT)
        assert read_until(process.stdout, "fault") == "fault stalled"
        assert line.word(WHEEL, SPEED) == 0
        assert line.registers[WHEEL][TORQUE] == 1


def test_safe_stop_stops_the_wheels_of_a_robot_that_nobody_drives() -> None:
    with WheelLine() as line:
        with child(str(FOLDER / "drive_cart.py"), line.port) as (process, log):
            wait_for(lambda: is_rolling(line), "rolling")
            stop_file = str(stop_file_path(line.port))
            taken = subprocess.run([safe_stop_program(), stop_file], capture_output=True, text=True)
            assert taken.returncode == 1
            assert "is in use" in taken.stderr
            process.kill()
            wait_for(lambda: "has died" in log.read_text(), "the watcher's message")
        line.set_word(WHEEL, SPEED, 500)
        line.set_word(ARM, GOAL, 2000)

        def stops() -> bool:  # the watcher may hold the port for a moment longer
            done = subprocess.run([safe_stop_program(), stop_file], capture_output=True, text=True)
            return done.returncode == 0 and "wheels are stopped" in done.stdout

        wait_for(stops, "safe-stop FILE")
        wait_for(lambda: line.word(WHEEL, SPEED) == 0, "the wheels' stop")
        assert line.word(ARM, GOAL) == 2000


def test_an_owner_whose_line_is_pulled_says_that_its_wheels_may_turn_on() -> None:
    line = WheelLine()
    with line, child(str(FOLDER / "drive_cart.py"), line.port) as (process, log):
        wait_for(lambda: is_rolling(line), "rolling")
        line.hang_up()
        assert process.wait(20) == 1
        said = log.read_text()
        assert "connect again; wheel may still turn, as last told, until the robot is enabled again" in said
        assert f"`safe-stop {stop_file_path(line.port)}` has run" in said


def test_an_owner_that_leaves_is_not_stopped(arm: LiveArm, capfd: pytest.CaptureFixture[str]) -> None:
    with Robot.connect(arm.config) as robot:
        with robot.enabled():
            play_sweep(robot, seconds=1.0)
        with robot.enabled():
            pass
    assert "safe-stop" not in capfd.readouterr().err
    arm.story().check_held()


def test_a_robot_whose_watcher_has_ended_is_stopped_and_enabling_starts_another(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with pytest.raises(SafetyStop, match="safe-stop has ended"), robot.enabled():
            assert robot._watcher is not None
            os.kill(robot._watcher.pid, signal.SIGKILL)
            wait_for(lambda: robot._watcher is not None and not robot._watcher.is_running, "the watcher's end")
            robot.check()
        with robot.enabled():
            assert robot._watcher is not None and robot._watcher.is_running
            robot.check()
    arm.story().check_held()


FORGETS = """
import sys
from wallx_edge.robot import Robot
sys.path.insert(0, sys.argv[2])
from live_arm import play_sweep
robot = Robot.connect(sys.argv[1])
inside = robot.enabled()
inside.__enter__()
play_sweep(robot, seconds=30.0)
raise RuntimeError("boom")
"""


@pytest.mark.parametrize("is_mailbox", [False, True])
def test_a_program_that_ends_without_disconnecting_brakes(arm: LiveArm, is_mailbox: bool) -> None:
    if is_mailbox:
        arm.edit("[bus]", '[bus]\nkind = "mailbox"\nadapter = "pyserial"')
    with child("-c", FORGETS, str(arm.config.path), str(FOLDER)) as (process, log):
        assert process.wait(20) == 1, log.read_text()
        assert "boom" in log.read_text()
        assert "safe-stop" not in log.read_text()  # it was told that all is well
    arm.story().check_held()


def test_without_the_program_nothing_is_enabled(arm: LiveArm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallx_edge.safe_stop.sysconfig.get_path", lambda _: "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    with Robot.connect(arm.config) as robot:
        with pytest.raises(DeviceError, match="install wallx-edge again"), robot.enabled():
            pass
        assert robot.loop.state == "calibrated"
    assert arm.story().num_writes == 0


def test_a_watcher_that_cannot_read_its_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="exit code 1"):
        Watcher(tmp_path / "absent.json", 0, 0)


@pytest.mark.parametrize("arguments", [[], ["--watch"], ["--watch", "a", "b", "c"], ["a", "b"]])
def test_wrong_usage_is_said(arguments: list[str]) -> None:
    done = subprocess.run([safe_stop_program(), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: safe-stop FILE" in done.stderr
