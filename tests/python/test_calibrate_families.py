"""Calibration of the arms that are no SO-101: servos that turn themselves round, and motors that report degrees."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from emulated import emulated
from hand import Hand
from live_arm import wait_for
from wallx_edge import _core
from wallx_edge.buses import BusConfig
from wallx_edge.calibrate import CalibrationPlan, Procedure, Unit, signature_path
from wallx_edge.calibrate.unit import fields_of
from wallx_edge.embodiment import JointCalibration, load_calibration, load_embodiment
from wallx_edge.errors import CalibrationError, ConfigError, DeviceError
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess, openarm, read_log, state_trace
from wallx_edge.sim.koch import KOCH

OPENARM = load_embodiment("openarm")
IDS = {joint.name: joint.id for joint in OPENARM.joints}
PLAN = CalibrationPlan.load(OPENARM)
BEYOND = 3  # from the emulated unit's range to its stops [degrees]


def zero_shares(turned: Mapping[str, float] | None = None) -> dict[str, float]:
    """Where in its travel each joint of the emulated OpenArm hangs, or `turned` by some degrees."""
    shares = {}
    for joint, unit in openarm.default_calibration().items():
        low, high = unit["range_min"] - BEYOND, unit["range_max"] + BEYOND
        shares[joint] = ((turned or {}).get(joint, 0.0) - low) / (high - low)
    return shares


def openarm_hand(sim: SimProcess, **changes: object) -> Hand:
    return Hand(sim, IDS, resolution=0, **{"zeros": zero_shares(), **changes})  # type: ignore[arg-type]


def calibrate(config: RobotConfig, hand: Hand) -> dict[str, object]:
    with Unit(OPENARM, IDS, config.bus) as unit:
        return dict(Procedure(unit, PLAN, hand, config.calibration).run())


class Script:
    """Answers the command's tasks: drags the joints that it names until the emulator's log has them at rest."""

    def __init__(self, name: str, sim: SimProcess, log: Path) -> None:
        self.sim, self.log = sim, log
        self.ids = {joint.name: joint.id for joint in load_embodiment(name).joints}

    def move(self, shares: Mapping[str, float]) -> None:
        since = time.monotonic_ns()
        for joint, share in shares.items():
            self.sim.send(f"hand {self.ids[joint]} {share}")

        def are_at_rest() -> bool:
            trace = state_trace(read_log(self.log))
            rows = trace.position[trace.t > since][-40:]
            # ticks of a servo, urad of a motor
            return len(rows) == 40 and int(np.ptp(rows, axis=0).max()) <= (2 if self.ids.keys() != IDS.keys() else 2000)

        wait_for(are_at_rest, f"moving {', '.join(shares)}")

    def do(self, task: str, joints: Mapping[str, str]) -> None:
        if task == "zero":
            self.move(zero_shares())
            return
        for share in (0.5,) if task == "middle" else (0.0, 1.0, 0.5):
            self.move(dict.fromkeys(joints, share))


@pytest.mark.parametrize(
    ("name", "wanted"), [("koch", ["sweep", "middle", "verify"]), ("openarm", ["sweep", "zero", "verify"])]
)
def test_the_command_calibrates_an_arm_that_then_runs(name: str, wanted: list[str], tmp_path: Path) -> None:
    with emulated(name, tmp_path) as (sim, config):
        truth = json.loads(config.calibration.read_text())
        config.calibration.unlink()
        script = Script(name, sim, tmp_path / "emulator.jsonl")
        command = [Path(sys.executable).with_name("wallx-edge"), "calibrate", str(config.path), "--json"]
        tasks = []
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            events = []
            for line in process.stdout:
                events.append(json.loads(line))
                if events[-1]["event"] in wanted:
                    tasks.append(events[-1]["event"])
                    script.do(tasks[-1], events[-1]["joints"])
                    process.stdin.write("\n")
                    process.stdin.flush()
            assert process.wait(30) == 0, events
        assert tasks == wanted
        measured = json.loads(config.calibration.read_text())
        assert measured == events[-1]["joints"]
        signed = json.loads(signature_path(config.calibration).read_text())
        for joint, true in truth.items():
            found = measured[joint]
            assert (found["id"], found["drive_mode"]) == (true["id"], true["drive_mode"])
            if name == "openarm":
                assert abs(found["homing_offset"] - true["homing_offset"]) <= 1
                assert abs(found["range_min"] - (true["range_min"] - BEYOND)) <= 2
                assert abs(found["range_max"] - (true["range_max"] + BEYOND)) <= 2
                assert signed["motors"][joint]["serial"] == 26_000 + found["id"] - 1
            elif joint not in ("wrist_roll", "elbow_flex"):  # placed; its stops are not the ends of its range
                assert abs(found["range_min"] + found["range_max"] - 4095) <= 2
                ends = [found["range_min"] - found["homing_offset"], found["range_max"] - found["homing_offset"]]
                truly = [true["range_min"] - true["homing_offset"], true["range_max"] - true["homing_offset"]]
                assert np.abs(np.subtract(ends, truly)).max() <= 3
        script.move(dict.fromkeys(script.ids, 0.5))
        with Robot.connect(config) as robot, robot.enabled():
            assert robot.loop.state in ("armed", "hold")


def test_a_zero_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    with emulated("openarm", tmp_path) as (sim, config):
        text = config.calibration.read_text()
        hand = openarm_hand(sim, zeros=zero_shares({"joint_4": 60.0}))
        with pytest.raises(CalibrationError, match=r"'joint_4' reaches from -65 to 83 degrees .* limits are 0\.\.135"):
            calibrate(config, hand)
        assert config.calibration.read_text() == text
        assert not signature_path(config.calibration).exists()


def test_a_second_pass_that_differs_is_refused(tmp_path: Path) -> None:
    with emulated("openarm", tmp_path) as (sim, config):
        text = config.calibration.read_text()
        hand = openarm_hand(sim)

        def shorten(task: str) -> None:
            hand.reach = 0.94 if task == "verify" else 1.0

        hand.before = shorten
        with pytest.raises(CalibrationError, match=r"the second pass went from .* degrees, the first one says"):
            calibrate(config, hand)
        assert hand.tasks == ["sweep", "zero", "verify"]
        assert config.calibration.read_text() == text


def test_a_motor_that_would_come_back_a_turn_away_is_refused(tmp_path: Path) -> None:
    unit = openarm.default_calibration()
    unit["joint_4"]["homing_offset"] = 100
    openarm.write_calibration(tmp_path / "turned.json", unit)
    with SimProcess("openarm", link=tmp_path / "port", calibration=tmp_path / "turned.json") as sim:
        bus = BusConfig(kind="slcan", port=str(tmp_path / "port"), data_bit_rate=5_000_000)
        with Unit(OPENARM, IDS, bus) as opened:
            procedure = Procedure(opened, PLAN, openarm_hand(sim), tmp_path / "unit.json")
            with pytest.raises(CalibrationError, match=r"'joint_4' moved from 95 to 243 degrees .* from -180 to 179"):
                procedure.run()
    assert not (tmp_path / "unit.json").exists()


def test_a_servo_that_would_come_back_a_turn_away_is_refused(tmp_path: Path) -> None:
    koch = load_embodiment("koch")
    ids = {joint.name: joint.id for joint in koch.joints}
    unit = KOCH.default_calibration()
    unit["shoulder_pan"]["homing_offset"] = 2000
    KOCH.write_calibration(tmp_path / "turned.json", unit)
    with SimProcess("koch", link=tmp_path / "port", calibration=tmp_path / "turned.json") as sim:
        with Unit(koch, ids, BusConfig(port=str(tmp_path / "port"))) as opened:
            before = {joint: opened.registers(joint) for joint in ids}
            procedure = Procedure(opened, CalibrationPlan.load(koch), Hand(sim, ids), tmp_path / "unit.json")
            with pytest.raises(CalibrationError, match=r"'shoulder_pan' moved from -1\d+ to .* from 0 to 4095"):
                procedure.run()
            assert {joint: opened.registers(joint) for joint in ids} == before
    assert not (tmp_path / "unit.json").exists()


def test_a_left_arm_is_told_by_its_sweep(tmp_path: Path) -> None:
    unit = openarm.default_calibration()
    unit["joint_2"] |= {"drive_mode": 1, "range_min": -95, "range_max": 12}
    openarm.write_calibration(tmp_path / "left.json", unit)
    with SimProcess("openarm", link=tmp_path / "port", calibration=tmp_path / "left.json") as sim:
        bus = BusConfig(kind="slcan", port=str(tmp_path / "port"), data_bit_rate=5_000_000)
        low, high = -95 - BEYOND, 12 + BEYOND
        hand = openarm_hand(sim, zeros=zero_shares() | {"joint_2": -low / (high - low)})
        with Unit(OPENARM, IDS, bus) as opened:
            Procedure(opened, PLAN, hand, tmp_path / "unit.json").run()
    assert [joint.drive_mode for joint in load_calibration(tmp_path / "unit.json", OPENARM)] == [0, 1, 0, 0, 0, 0, 0, 0]


def test_lerobots_ranges_of_such_motors_are_not_taken_for_measured_ones(tmp_path: Path) -> None:
    with emulated("openarm", tmp_path) as (sim, config), Unit(OPENARM, IDS, config.bus) as unit:
        calibration = dict(zip(IDS, load_calibration(config.calibration, OPENARM), strict=True))
        with pytest.raises(ConfigError, match=r"'damiao' keep no calibration: .* without --import"):
            Procedure(unit, PLAN, openarm_hand(sim), config.calibration).take_over(calibration)


def test_damiao_registers_are_written_without_torque_only_and_stored(tmp_path: Path) -> None:
    arm = openarm.make_arm()
    try:
        arm.start(link=str(tmp_path / "port"))
        bus = _core.BusConfig(kind="slcan", port=arm.port, data_bit_rate=5_000_000)
        registers = _core.make_motor_registers("damiao", bus)
        registers.open()
        try:
            assert registers.ping(4)
            assert not registers.ping(40)
            assert registers.read(4, "serial_number") == 26_003
            assert registers.value(4, "pmax") == 12.5
            assert registers.value(2, "present_position") == pytest.approx(np.radians(3), abs=1e-3)
            for name, value, error, message in [
                ("colour", 1, ConfigError, "have no register 'colour'"),
                ("serial_number", 5, DeviceError, "can only be read"),
                ("timeout", -1, ConfigError, "cannot hold -1"),
                ("torque_enable", 1, DeviceError, "not switched on here"),
            ]:
                with pytest.raises(error, match=message):
                    registers.write(4, name, value)
            with pytest.raises(ConfigError, match="holds a fraction"):
                registers.read(4, "pmax")
            registers.write(4, "timeout", 2000)
            assert registers.value(4, "timeout") == 0.1
            arm.set_fault("reboot", 4)
            assert registers.read(4, "timeout") == 2000, "it was not stored"
            arm.set_fault("ignore_writes", 4)
            with pytest.raises(DeviceError, match=r"was written 0 and reads back 2000"):
                registers.write(4, "timeout", 0)
            arm.clear_fault("ignore_writes", 4)
            arm.set_fault("silent", 5)
            with pytest.raises(match="of motor 5"):
                registers.read(5, "timeout")
        finally:
            registers.close()
        assert arm.counters["enables"] == 0
    finally:
        arm.stop()


def test_damiao_torque_is_let_go_by_name_and_guards_the_registers(tmp_path: Path) -> None:
    with emulated("openarm", tmp_path) as (_, config):
        with Robot.connect(config) as robot, robot.enabled():
            pass  # leaving it holds what has weight
        with Unit(OPENARM, IDS, config.bus) as unit:
            # the drives of the others have a timeout that lets go
            assert unit.holding() == ["joint_1", "joint_2", "joint_3", "joint_4", "joint_6"]
            with pytest.raises(DeviceError, match="written only without torque; motor 6 has torque"):
                unit.write("joint_6", {"timeout": 1000})
            unit.let_go("joint_6")
            assert unit.holding() == ["joint_1", "joint_2", "joint_3", "joint_4"]


def test_a_file_that_counts_another_way_than_its_servo_is_refused(tmp_path: Path) -> None:
    with emulated("koch", tmp_path) as (sim, config):
        embodiment = load_embodiment("koch")
        ids = {joint.name: joint.id for joint in embodiment.joints}
        truth = dict(zip(ids, load_calibration(config.calibration, embodiment), strict=True))
        values = fields_of(truth["gripper"])
        turned = JointCalibration(**values | {"drive_mode": 1 - values["drive_mode"]})
        with Unit(embodiment, ids, config.bus) as unit:
            procedure = Procedure(unit, CalibrationPlan.load(embodiment), Hand(sim, ids), config.calibration)
            with pytest.raises(CalibrationError, match="'gripper': its motor's drive_mode is 0, the file says 1"):
                procedure.take_over(truth | {"gripper": turned})
