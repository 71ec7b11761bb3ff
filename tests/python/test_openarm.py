"""OpenArm: its description, its calibration in degrees, and the control loop on emulated motors over real bytes."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulated import emulated
from wallx_edge import _core
from wallx_edge.buses import BusConfig
from wallx_edge.embodiment import Embodiment, load_calibration, load_embodiment, with_drops
from wallx_edge.errors import CalibrationError, ConfigError, DeviceError
from wallx_edge.robot import Robot
from wallx_edge.safe_stop import safe_stop_program, write_stop_file
from wallx_edge.sim import CanArmEmulator, SimProcess, openarm, read_log, state_trace

DEADLINE = 20.0  # for anything that must happen, generous so that a busy computer does not matter [s]
RATE = 300.0


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    """The emulated unit's calibration file."""
    path = tmp_path / "unit.json"
    openarm.write_calibration(path)
    return path


def embodiment() -> Embodiment:
    """OpenArm whose weight-bearing joints are not armed to let go."""
    return with_drops(load_embodiment("openarm"), False)[0]


def wait_for(is_true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not is_true():
        assert time.monotonic() < end, f"no {what} within {DEADLINE:g} s"
        time.sleep(0.005)


@contextmanager
def looping(calibration: Path, bus: _core.BusConfig, rate_hz: float = RATE) -> Iterator[_core.ControlLoop]:
    robot = _core.make_robot(embodiment(), load_calibration(calibration, embodiment()), bus)
    # the computer that tests may stand still for longer than a robot's
    loop = _core.ControlLoop(robot, rate_hz=rate_hz, stale_hold_s=1.0, stale_fault_s=2.0)
    robot.connect()
    try:
        loop.start()
        yield loop
    finally:
        loop.stop()
        robot.disconnect()


def move(loop: _core.ControlLoop, seconds: float) -> None:
    """There and back: elbow up to 0.6 rad, wrist and gripper a little."""

    def has_feedback() -> bool:
        newest = loop.snapshot()
        return newest is not None and newest["read"]["code"] == "ok"

    wait_for(has_feedback, "feedback")
    loop.enable()
    wait_for(lambda: loop.state in ("armed", "ramp", "run"), "torque")
    record = loop.snapshot()
    assert record is not None
    step = seconds / 100
    phase = (1 - np.cos(np.linspace(0, 2 * np.pi, int(seconds / step)))) / 2
    rows = np.array(record["command"]) + phase[:, None] * np.array([0, 0.1, 0, 0.6, 0.2, 0.1, -0.2, -0.3])
    rows[:, 3] = np.maximum(rows[:, 3], 0.0)
    rows[:, 7] = np.minimum(rows[:, 7], 0.0)
    loop.submit(rows, time.monotonic() + 0.05, step, loop.generation)


def test_every_joint_is_described() -> None:
    described = load_embodiment("openarm")
    assert described.motor_family == "damiao"
    assert [joint.id for joint in described.joints] == list(range(1, 9))
    for joint in described.joints:
        assert joint.drive["kd"] > 0, "stiffness without damping lets a motor oscillate"
        # what the weight alone makes of the following error must not look like an obstacle
        assert 2 * joint.static_sag <= joint.max_following_error
        # the push that an obstacle meets is bounded before the following error is
        assert joint.drive["max_torque"] / joint.drive["kp"] > joint.static_sag


def test_letting_go_must_be_accepted_or_declined() -> None:
    described = load_embodiment("openarm")
    with pytest.raises(ConfigError, match=r"'joint_1'.*accept_drop"):
        with_drops(described, None)
    armed, falling = with_drops(described, True)
    assert falling == ["joint_1", "joint_2", "joint_3", "joint_4", "joint_6"]
    assert all(joint.drive_timeout == 0.1 for joint in armed.joints)
    held, falling = with_drops(described, False)
    assert falling == []
    assert [joint.drive_timeout for joint in held.joints] == [0, 0, 0, 0, 0.1, 0, 0.1, 0.1]
    assert all(joint.drive for joint in held.joints)


def test_an_arm_that_will_fall_is_said_once_when_torque_comes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with emulated("openarm", tmp_path) as (_, config):
        config.path.write_text(config.path.read_text().replace("accept_drop = false", "accept_drop = true"))
        with Robot.connect(config.path) as robot:
            assert "will fall" not in caplog.text
            for _ in range(2):
                with robot.enabled():
                    pass
            assert caplog.text.count("joint_1, joint_2, joint_3, joint_4, joint_6 will fall when") == 1


def test_safe_stop_has_nothing_to_do_for_an_arm(
    tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    units = load_calibration(calibration, embodiment())
    stop_file = write_stop_file(embodiment(), units, BusConfig(kind="slcan", port=str(tmp_path / "absent")))
    done = subprocess.run([safe_stop_program(), stop_file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'openarm' has no wheels" in done.stdout


def test_the_calibration_that_lerobot_writes_fits(tmp_path: Path) -> None:
    fields = {"drive_mode": 0, "homing_offset": 0, "range_min": -90, "range_max": 90}
    names = [joint.name for joint in load_embodiment("openarm").joints]
    file = tmp_path / "lerobot.json"
    file.write_text(json.dumps({name: {"id": i + 1, **fields} for i, name in enumerate(names)}))
    robot = _core.make_robot(
        embodiment(), load_calibration(file, embodiment()), _core.BusConfig(kind="slcan", port="/dev/null")
    )
    elbow = robot.embodiment.joints[3].limits
    assert (elbow.min_position, elbow.max_position) == (0.0, pytest.approx(math.pi / 2))


def test_a_calibration_in_ticks_is_refused(tmp_path: Path, calibration: Path) -> None:
    values = json.loads(calibration.read_text())
    values["joint_1"]["range_max"] = 3441
    calibration.write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match=r"'joint_1'.*range_max is 3441.*-720\.\.720"):
        load_calibration(calibration, embodiment())


def test_a_serial_line_is_refused(calibration: Path) -> None:
    with pytest.raises(ConfigError, match=r"bus kind 'serial'.*CAN frames"):
        _core.make_robot(embodiment(), load_calibration(calibration, embodiment()), _core.BusConfig(port="/dev/null"))


@pytest.mark.parametrize("data_bit_rate", [0, 5_000_000], ids=["classic", "fd"])
def test_the_loop_moves_the_arm_over_slcan(tmp_path: Path, calibration: Path, data_bit_rate: int) -> None:
    log = tmp_path / "emulator.jsonl"
    options = [] if data_bit_rate else ["--classic"]
    with SimProcess("openarm", link=tmp_path / "port", log=log, calibration=calibration, options=options) as sim:
        bus = _core.BusConfig(kind="slcan", port=str(tmp_path / "port"), data_bit_rate=data_bit_rate)
        with looping(calibration, bus) as loop:
            move(loop, 3.0)
            wait_for(lambda: loop.state == "hold", "end of the plan")
            counters = loop.counters()
            assert loop.fault_report() is None
            record = loop.snapshot()
            assert record is not None
            command = np.array(record["command"])
        sim.stop()
    assert counters["ticks"] > 300
    trace = state_trace(read_log(log))
    on = np.flatnonzero(trace.torque.all(axis=1))
    assert on.size, "the motors were never enabled"
    assert trace.torque[on[0] :].all(), "a motor let go"
    elbow = trace.position[:, 3] * 1e-6
    assert elbow.max() > 0.5
    assert abs(elbow[-1] - command[3]) < 0.05


def test_the_loop_moves_the_arm_over_udp(tmp_path: Path, calibration: Path) -> None:
    # a port of this test's own: others may use the group
    group = f"239.74.163.77:{20000 + time.monotonic_ns() % 20000}"
    arm = openarm.make_arm()
    try:
        arm.start(bus="udp_multicast", group=group, interface="lo")
        bus = _core.BusConfig(kind="udp_multicast", port=group, interface="lo", data_bit_rate=5_000_000)
        with looping(calibration, bus) as loop:
            move(loop, 2.0)
            wait_for(lambda: arm.positions[4] > 0.5, "motion")
            wait_for(lambda: loop.state == "hold", "end of the plan")
            assert loop.fault_report() is None
        assert all(arm.torques.values()), "a motor let go"
    finally:
        arm.stop()


def test_a_motor_that_restarts_stops_the_loop(tmp_path: Path, calibration: Path) -> None:
    arm = openarm.make_arm()
    try:
        arm.start(link=str(tmp_path / "port"))
        bus = _core.BusConfig(kind="slcan", port=arm.port, data_bit_rate=5_000_000)
        with looping(calibration, bus) as loop:
            move(loop, 5.0)
            wait_for(lambda: loop.state == "run", "motion")
            arm.set_fault("reboot", 4)
            wait_for(lambda: loop.state == "fault", "fault")
            report = loop.fault_report()
            assert report is not None
            assert "'joint_4'" in report["message"]
        assert arm.torques == {i: int(i != 4) for i in range(1, 9)}, "the others hold"
    finally:
        arm.stop()


def test_a_wrong_range_is_refused_with_both_values(tmp_path: Path, calibration: Path) -> None:
    motors = openarm.motor_setups()
    motors[3].vmax = 8.0  # as another library has it
    arm = CanArmEmulator(motors)
    try:
        arm.start()
        bus = _core.BusConfig(kind="slcan", port=arm.port, data_bit_rate=5_000_000)
        robot = _core.make_robot(embodiment(), load_calibration(calibration, embodiment()), bus)
        with pytest.raises(DeviceError, match=r"'joint_4'.*vmax \(22\) is 8, expected 10"):
            robot.connect()
        assert not any(arm.torques.values())
        assert arm.counters["controls"] == arm.counters["writes"] == 0
    finally:
        arm.stop()


def ask_with_python_can(bus: Any, can: Any, is_fd: bool) -> None:
    question = bytes.fromhex("0100331500000000")  # position range of motor 1
    bus.send(can.Message(arbitration_id=0x7FF, data=question, is_extended_id=False, is_fd=is_fd, bitrate_switch=is_fd))
    answer = bus.recv(DEADLINE)
    if answer is not None and answer.arbitration_id == 0x7FF:  # over multicast it hears itself
        answer = bus.recv(DEADLINE)
    assert answer is not None
    assert (answer.arbitration_id, bytes(answer.data).hex()) == (0x11, "0100331500004841")
    assert (answer.is_fd, answer.bitrate_switch, answer.is_extended_id) == (is_fd, is_fd, False)


def test_python_can_speaks_to_the_motors_over_slcan() -> None:
    can = pytest.importorskip("can", reason="python-can is not installed")
    pytest.importorskip("serial", reason="pyserial is not installed")
    arm = openarm.make_arm()
    try:
        arm.start()
        with can.Bus(interface="slcan", channel=arm.port, bitrate=1_000_000, sleep_after_open=0.1) as bus:
            ask_with_python_can(bus, can, False)
            ask_with_python_can(bus, can, True)
    finally:
        arm.stop()


def test_python_can_speaks_to_the_motors_over_udp() -> None:
    can = pytest.importorskip("can", reason="python-can is not installed")
    pytest.importorskip("msgpack", reason="msgpack is not installed")
    port = 20000 + time.monotonic_ns() % 20000
    arm = openarm.make_arm()
    try:
        arm.start(bus="udp_multicast", group=f"239.74.163.2:{port}")
        with can.Bus(interface="udp_multicast", channel="239.74.163.2", port=port, fd=True) as bus:
            ask_with_python_can(bus, can, True)
            ask_with_python_can(bus, can, False)
    finally:
        arm.stop()
