"""Every way to press the e-stop, and what it takes to move again or to let go, on an emulated arm."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import pty
import signal
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from live_arm import LiveArm, play_sweep, wait_for
from wallx_edge import _core
from wallx_edge.cli import main
from wallx_edge.cli.operator import estop_key
from wallx_edge.errors import ConfigError, DeviceError, SafetyStop
from wallx_edge.robot import Robot
from wallx_edge.safe_stop import estop_socket_path


@pytest.fixture(autouse=True)
def own_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def is_stopped(robot: Robot) -> bool:
    report = robot.loop.fault_report()
    return report is not None and report["cause"]["reason"] == "e-stop"


def test_the_socket_stops_the_robot_until_it_is_reset(arm: LiveArm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with Robot.connect(arm.config) as robot:
        path = estop_socket_path(arm.config.bus.port)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(SafetyStop, match="e-stop"), robot.enabled():
            play_sweep(robot)
            assert main(["estop", str(arm.config.path)]) == 0
            wait_for(lambda: is_stopped(robot), "the e-stop")
            robot.check()
        with pytest.raises(SafetyStop, match="e-stop"), robot.enabled():
            pass
        robot.reset()
        assert "reset after: " in caplog.text
        assert "e-stop" in caplog.text
        assert robot.loop.counters()["resets"] == 1
        robot.reset()  # nothing to take back
        with robot.enabled():
            play_sweep(robot)
    assert not path.exists()
    arm.story().check_held()


def test_without_a_robot_the_verb_says_so(arm: LiveArm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estop", str(arm.config.path)]) == 1
    assert "nobody listens" in capsys.readouterr().err


def test_a_signal_stops_the_robot(arm: LiveArm) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    _core.estop_on_signal(signal.SIGUSR1)
    try:
        with Robot.connect(arm.config) as robot, pytest.raises(SafetyStop, match="e-stop"), robot.enabled():
            play_sweep(robot)
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_for(lambda: is_stopped(robot), "the e-stop")
            robot.check()
    finally:
        signal.signal(signal.SIGUSR1, before or signal.SIG_DFL)
    arm.story().check_held()


def test_the_space_bar_stops_the_robot(arm: LiveArm, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal) as stdin, os.fdopen(keyboard, "wb", buffering=0) as keys:
        monkeypatch.setattr(sys, "stdin", stdin)
        with Robot.connect(arm.config) as robot, estop_key() as has_key:
            assert has_key
            with robot.enabled():
                play_sweep(robot)
                keys.write(b"x")
                time.sleep(0.1)
                assert robot.loop.state in ("ramp", "run")
                keys.write(b" ")
                wait_for(lambda: is_stopped(robot), "the e-stop")
    arm.story().check_held()


def test_without_a_terminal_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with estop_key() as has_key:
            assert not has_key


def test_a_button_that_is_not_there_refuses_to_connect(arm: LiveArm) -> None:
    chip = '[estop]\ngpio_chip = "/dev/gpiochip_absent"\ngpio_line = 3\n'
    config = arm.edit("[policy]", f"{chip}\n[policy]")
    assert config.estop == ("/dev/gpiochip_absent", 3, True)
    with pytest.raises(DeviceError, match="gpiochip_absent"):
        Robot.connect(config)
    assert arm.story().num_writes == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [('active = "up"', "must be one of low, high"), ("gpio_line = -1", "gpio_line is -1"), ("led = 1", "'led'")],
)
def test_a_wrong_button_is_named(arm: LiveArm, line: str, message: str) -> None:
    table = {"gpio_chip": '"/dev/gpiochip0"', "gpio_line": "3"} | dict([line.split(" = ")])
    text = "\n".join(f"{key} = {value}" for key, value in table.items())
    with pytest.raises(ConfigError, match=message):
        arm.edit("[policy]", f"[estop]\n{text}\n\n[policy]")


def test_a_real_line_is_taken_and_read(arm: LiveArm) -> None:
    chips = sorted(Path("/dev").glob("gpiochip*"))
    if not chips:
        pytest.skip("this computer has no GPIO character device (gpio-sim would make one)")
    before = _core.EstopListener(gpio_chip=str(chips[0]), gpio_line=0)
    del before


def test_nothing_is_reset_while_the_button_is_pressed(arm: LiveArm, monkeypatch: pytest.MonkeyPatch) -> None:
    with Robot.connect(arm.config) as robot:
        robot.estop()
        wait_for(lambda: is_stopped(robot), "the e-stop")
        monkeypatch.setattr(robot, "_estop", SimpleNamespace(is_pressed=True))
        with pytest.raises(SafetyStop, match="still pressed"):
            robot.reset()
        assert is_stopped(robot)
        monkeypatch.setattr(robot, "_estop", SimpleNamespace(is_pressed=False))
        robot.reset()
        assert robot.loop.state in ("identify", "calibrated")


def test_letting_go_needs_the_names_of_what_falls(arm: LiveArm, caplog: pytest.LogCaptureFixture) -> None:
    with Robot.connect(arm.config) as robot:
        assert robot.falling_joints == ("shoulder_lift", "elbow_flex", "wrist_flex")
        with robot.enabled():
            play_sweep(robot)
        with pytest.raises(ConfigError, match="shoulder_lift, elbow_flex, wrist_flex"):
            robot.release(falling=())
        assert robot.loop.state == "hold"
        robot.release(falling=("elbow_flex", "shoulder_lift", "wrist_flex"))
        assert robot.loop.state == "off"
        assert "shoulder_lift, elbow_flex, wrist_flex will fall" in caplog.text
        with robot.enabled():
            assert robot.loop.state == "armed"
    torque = arm.story().trace.torque
    assert (torque[-1] == 1).all()
    assert (torque == 0).all(axis=1)[np.flatnonzero(torque.all(axis=1))[0] :].any()


def test_an_obstacle_stops_the_arm_and_is_named(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with pytest.raises(SafetyStop, match=r"'elbow_flex' .*obstacle"), robot.enabled():
            play_sweep(robot, seconds=2.0)
            arm.sim.send("fault block 3")
            wait_for(lambda: robot.loop.state == "fault", "the fault")
            robot.check()
        record = robot.loop.snapshot()
        assert record is not None
        assert record["torque_share"][2] == 0.5
        arm.sim.send("clear block 3")
        robot.reset()
        with robot.enabled():
            play_sweep(robot)
    torque = arm.story().trace.torque
    assert torque[np.flatnonzero(torque.all(axis=1))[0] :].all(), "a motor let go"
