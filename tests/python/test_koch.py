"""Koch v1.1 on emulated Dynamixel servos: connected, moved, and held by the servos' own watchdog."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from live_arm import play_sweep, wait_for, wait_for_the_end
from wallx_edge import _core
from wallx_edge.buses import BusConfig
from wallx_edge.calibrate import CalibrationPlan, Unit
from wallx_edge.embodiment import DriveAction, JointCalibration, load_calibration, load_embodiment
from wallx_edge.errors import CalibrationError, DeviceError
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess
from wallx_edge.sim.koch import KOCH

EMBODIMENT = load_embodiment("koch")
TOML = """[robot]
embodiment = "koch"
calibration = "calibration.json"
[bus]
port = "{port}"
[policy]
checkpoint = "none"
[[camera]]
role = "face_view"
kind = "pattern"
"""


def calibration(**changes: int) -> list[JointCalibration]:
    """The emulated unit's, with elbow_flex changed."""
    unit = KOCH.default_calibration()
    unit["elbow_flex"] |= changes
    return [JointCalibration(**unit[joint.name]) for joint in EMBODIMENT.joints]


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[SimProcess]:
    with SimProcess("koch", link=tmp_path / "port", log=tmp_path / "log.jsonl") as process:
        yield process


@pytest.fixture
def config(sim: SimProcess, tmp_path: Path) -> RobotConfig:
    KOCH.write_calibration(tmp_path / "calibration.json")
    (tmp_path / "robot.toml").write_text(TOML.format(port=tmp_path / "port"), encoding="utf-8")
    return RobotConfig.load(tmp_path / "robot.toml")


def test_every_joint_of_the_embodiment_is_emulated_and_holds_when_the_computer_is_silent() -> None:
    assert tuple(joint.name for joint in EMBODIMENT.joints) == KOCH.joint_names
    assert {joint.name for joint in CalibrationPlan.load(EMBODIMENT).joints} == set(KOCH.joint_names)
    for joint in EMBODIMENT.joints:
        assert (joint.drive_timeout, joint.drive_action) == (0.1, DriveAction.holds)
        low, high = KOCH.unit[joint.name][3:]
        half = (high - low) / 2 * 2 * np.pi / 4096
        assert -half <= joint.limits.min_position < joint.limits.max_position <= half


def test_lerobots_calibration_of_a_dynamixel_loads(tmp_path: Path) -> None:
    """Homing offsets of up to half a turn and more: 2047 - position."""
    unit = KOCH.default_calibration()
    unit["wrist_roll"]["homing_offset"] = -2048
    KOCH.write_calibration(tmp_path / "unit.json", unit)
    assert load_calibration(tmp_path / "unit.json", EMBODIMENT)[4].homing_offset == -2048


def test_a_unit_that_is_not_the_calibrated_one_is_refused(sim: SimProcess) -> None:
    bus = _core.BusConfig(port=sim.port)
    for change, message in (
        ({"homing_offset": -641}, r"'elbow_flex' .* homing_offset \(20\) is -640, expected -641"),
        ({"range_max": 3151}, r"max_position \(48\) is 3150, expected 3151"),
        ({"drive_mode": 1}, r"drive_mode \(10\) is 0, expected bit 0 to be 1"),
    ):
        with pytest.raises(CalibrationError, match=message):
            _core.make_robot(EMBODIMENT, calibration(**change), bus).connect()
    robot = _core.make_robot(EMBODIMENT, calibration(), bus)
    robot.connect()
    robot.disconnect()


def test_registers_by_name_are_written_without_torque_only(sim: SimProcess) -> None:
    ids = {joint.name: joint.id for joint in EMBODIMENT.joints}
    bus = BusConfig(port=sim.port)
    with Unit(EMBODIMENT, ids, bus) as unit:
        assert unit.identity()["gripper"] == {"id": 6, "model": 1200, "firmware": "52"}
        assert unit.read("elbow_flex", "homing_offset") == -640
        assert unit.holding() == []
    registers = _core.make_motor_registers("dynamixel_x", bus.core())
    registers.open()
    try:
        registers.write(3, "homing_offset", -700)
        assert registers.read(3, "homing_offset") == -700
        with pytest.raises(DeviceError, match="reads back"):
            registers.write(3, "operating_mode", 2)
        with pytest.raises(DeviceError, match="can only be read"):
            registers.write(3, "present_position", 0)
        with pytest.raises(DeviceError, match="not switched on here"):
            registers.write(3, "torque_enable", 1)
    finally:
        registers.close()


def is_still(robot: Robot) -> bool:
    positions = []
    for _ in range(5):
        positions.append(robot.state()[0])
        time.sleep(0.1)
    return float(np.ptp(positions, axis=0).max()) < 0.005


def test_it_moves_and_its_servos_hold_when_the_loop_ends(config: RobotConfig, sim: SimProcess) -> None:
    with Robot.connect(config) as robot, robot.enabled():
        rows = play_sweep(robot)
        wait_for_the_end(robot)
        wait_for(lambda: bool(np.abs(robot.state()[0] - rows[-1]).max() < 0.2), "arrival")
        wait_for(lambda: is_still(robot), "rest")
        held, _ = robot.state()
    # the loop is gone: the watchdogs trip after 0.1 s, the torque stays on, the arm stays where it is
    registers = _core.make_motor_registers("dynamixel_x", _core.BusConfig(port=sim.port))
    registers.open()
    try:
        assert registers.read(6, "torque_enable") == 1
        deadline = time.monotonic() + 20
        while registers.read(6, "bus_watchdog") != -1:
            assert time.monotonic() < deadline
            time.sleep(0.2)  # silence is what trips it
        assert [registers.read(id, "torque_enable") for id in range(1, 7)] == [1] * 6
    finally:
        registers.close()
    with Robot.connect(config) as robot:
        # a servo that trips takes its pose for its goal, and gives way once more by what its load makes of that
        sag = np.array([joint.static_sag for joint in EMBODIMENT.joints])
        assert (np.abs(robot.state()[0] - held) <= sag).all()
        with robot.enabled():
            wait_for(lambda: robot.loop.state == "armed", "being armed again")
