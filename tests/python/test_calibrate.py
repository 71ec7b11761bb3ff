"""Calibration on the emulated arm: measured by a hand, written, verified and signed; or the unit stays as it was."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hand import Hand
from live_arm import LiveArm
from wallx_edge.calibrate import CalibrationPlan, Procedure, Sweep, Unit, check_signature, signature_path
from wallx_edge.embodiment import JointCalibration, load_calibration, load_embodiment
from wallx_edge.errors import BusTimeout, CalibrationError, ConfigError, DeviceError, SafetyStop
from wallx_edge.robot import Robot
from wallx_edge.sim.so101 import default_calibration

ROOT = Path(__file__).resolve().parents[2]
SO101 = load_embodiment("so101")
PLAN = CalibrationPlan.load(SO101)
IDS = {joint.name: joint.id for joint in SO101.joints}
SWEPT = [joint.name for joint in PLAN.joints if joint.method == "sweep"]


@contextmanager
def opened(arm: LiveArm) -> Iterator[Unit]:
    with Unit(SO101, IDS, arm.config.bus) as unit:
        yield unit


def registers(unit: Unit) -> dict[str, dict[str, int]]:
    return {joint: unit.registers(joint) for joint in IDS}


def calibrate(arm: LiveArm, hand: Hand) -> dict[str, JointCalibration]:
    with opened(arm) as unit:
        return Procedure(unit, PLAN, hand, arm.config.calibration).run()


def as_dict(calibration: Mapping[str, JointCalibration]) -> dict[str, dict[str, int]]:
    fields = ("id", "drive_mode", "homing_offset", "range_min", "range_max")
    return {joint: {f: getattr(c, f) for f in fields} for joint, c in calibration.items()}


def check_against_schema(signature: dict[str, Any]) -> None:
    """The files we write have exactly the fields that the published schema names."""
    schema = json.loads((ROOT / "calibration/schema/unit.schema.json").read_text())
    assert set(signature) == set(schema["properties"]) == set(schema["required"])
    motor = schema["properties"]["motors"]["additionalProperties"]
    joint = schema["$defs"]["calibration"]["additionalProperties"]
    for part, found in ((motor, signature["motors"]), (joint, signature["measured"])):
        for values in found.values():
            assert set(part["required"]) <= set(values) <= set(part["properties"])


# -- the parts ----------------------------------------------------------------------------------------------------


def test_a_sweep_over_the_seam_is_one_sweep() -> None:
    sweep = Sweep("pan", 4000)
    for reported in (4090, 3, 400, 100, 4095, 3500):
        sweep.update(reported)
    assert (sweep.low, sweep.high, sweep.travel) == (3500, 4496, 996)
    assert sweep.is_wrapped


def test_a_step_that_could_go_either_way_is_refused() -> None:
    sweep = Sweep("pan", 0)
    sweep.update(1024)
    with pytest.raises(CalibrationError, match="went from 1024 to 2100 ticks between two looks"):
        sweep.update(2100)


def test_the_plan_knows_every_joint_and_refuses_what_it_does_not(tmp_path: Path) -> None:
    assert sorted(joint.name for joint in PLAN.joints) == sorted(IDS)
    text = (ROOT / "calibration/robots/so101.toml").read_text()
    file = tmp_path / "plan.toml"
    for old, new, message in [
        ('method = "middle"', 'method = "guess"', "must be one of sweep, middle"),
        ("travel = 2700 ", "travel = 0 ", "travel is 0, must be 1..4090"),
        ('name = "gripper"', 'name = "claw"', "are claw, elbow_flex"),
        ('embodiment = "so101"', 'embodiment = "koch"', "the robot is a so101"),
        ("drive_mode = 0", "drive_mod = 0", "'drive_mod' is not a known key"),
    ]:
        assert old in text
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigError, match=message):
            CalibrationPlan.load(SO101, file)


def test_registers_are_written_without_torque_only_and_last(arm: LiveArm) -> None:
    with opened(arm) as unit:
        unit.write("elbow_flex", {"homing_offset": -77})
        with pytest.raises(ConfigError, match="have no register 'colour'"):
            unit.read("elbow_flex", "colour")
        with pytest.raises(ConfigError, match="cannot hold 2048"):
            unit.write("elbow_flex", {"homing_offset": 2048})
        with pytest.raises(DeviceError, match="can only be read"):
            unit.write("elbow_flex", {"model_number": 5})
        with pytest.raises(DeviceError, match="not switched on here"):
            unit.write("elbow_flex", {"torque_enable": 1})
        arm.sim.fault("ignore_writes", IDS["elbow_flex"])
        with pytest.raises(DeviceError, match="of servo 3 was written 0 and reads back 1; is it write-protected"):
            unit.write("elbow_flex", {"homing_offset": 5})
        arm.sim.clear("ignore_writes")
        arm.sim.fault("reboot")
        assert unit.read("elbow_flex", "homing_offset") == -77
        assert unit.read("elbow_flex", "lock") == 1
        arm.sim.fault("silent", 3)
        with pytest.raises(BusTimeout, match="of servo 3"):
            unit.read("elbow_flex", "homing_offset")


# -- the whole ------------------------------------------------------------------------------------------------------


def test_an_arm_is_calibrated_across_the_seam_and_runs(arm: LiveArm) -> None:
    with opened(arm) as unit:
        # homing that puts the encoder's seam in the middle of three joints' travel
        for joint, shift in {"shoulder_pan": 1348, "elbow_flex": 1348, "gripper": -1400}.items():
            unit.write(joint, {"homing_offset": unit.registers(joint)["homing_offset"] + shift})
    with pytest.raises(CalibrationError):
        Robot.connect(arm.config)
    hand = Hand(arm.sim, IDS)
    result = as_dict(calibrate(arm, hand))
    assert hand.tasks == ["sweep", "middle", "verify"]
    unit_truth = default_calibration()
    for joint in SWEPT:
        low, high = result[joint]["range_min"], result[joint]["range_max"]
        assert abs((low + high) / 2 - 2048) <= 1, "the range is not centred"
        # the encoder's own angles of both stops, whatever the homing
        truth = unit_truth[joint]
        if joint != "elbow_flex":  # its stops are not the ends of its range
            assert abs(low + result[joint]["homing_offset"] - truth["range_min"] - truth["homing_offset"]) % 4096 <= 3
            assert abs(high + result[joint]["homing_offset"] - truth["range_max"] - truth["homing_offset"]) % 4096 <= 3
    assert result["wrist_roll"]["range_max"] == 4095
    written = json.loads(arm.config.calibration.read_text())
    assert written == result
    assert [(j.homing_offset, j.range_min) for j in load_calibration(arm.config.calibration, SO101)] == [
        (c["homing_offset"], c["range_min"]) for c in result.values()
    ]
    assert not arm.config.calibration.with_suffix(".undo.json").exists()
    arm.sim.fault("reboot")  # what was written survives
    arm.sim.send("hand 1")
    with Robot.connect(arm.config) as robot:
        assert abs(robot.state()[0]).max() < 2.1


def test_another_unit_or_an_edited_file_is_refused(arm: LiveArm) -> None:
    path = arm.config.calibration
    calibration = dict(zip(IDS, load_calibration(path, SO101), strict=True))
    assert not check_signature(path, SO101, calibration, arm.config.bus)
    with opened(arm) as unit:
        Procedure(unit, PLAN, Hand(arm.sim, IDS), path).take_over(calibration)
    assert check_signature(path, SO101, calibration, arm.config.bus)
    check_against_schema(json.loads(signature_path(path).read_text()))
    Robot.connect(arm.config).disconnect()

    text, signature = path.read_text(), signature_path(path).read_text()
    path.write_text(text.replace('"range_min": 743', '"range_min": 744'))
    with pytest.raises(CalibrationError, match="it was edited; calibrate this so101 again"):
        Robot.connect(arm.config)
    path.write_text(text)
    for old, new, message in [
        ('"firmware": "3.10"', '"firmware": "3.9"', "was changed after it was made"),
        ('"schema"', '"scheme"', "is damaged"),
    ]:
        assert old in signature
        signature_path(path).write_text(signature.replace(old, new, 1))
        with pytest.raises(CalibrationError, match=message):
            Robot.connect(arm.config)
    # an honest signature of a unit with other firmware
    other = json.loads(signature)
    other["motors"]["gripper"]["firmware"] = "3.9"
    from wallx_edge.calibrate.signature import _digest

    other["sha256"] = _digest(other)
    signature_path(path).write_text(json.dumps(other))
    with pytest.raises(CalibrationError, match=r"'gripper': the motor is .*firmware 3.10, .* measured on .*3\.9"):
        Robot.connect(arm.config)


@pytest.mark.parametrize("trouble", ["short", "second pass", "gave up", "write", "torque"])
def test_whatever_goes_wrong_the_unit_stays_as_it_was(arm: LiveArm, trouble: str) -> None:
    path = arm.config.calibration
    text = path.read_text()
    hand = Hand(arm.sim, IDS)

    def disturb(task: str) -> None:
        if trouble == "gave up" and task == "verify":
            raise KeyboardInterrupt
        if trouble == "second pass" and task == "verify":
            hand.reach = 0.93
        if trouble == "write" and task == "middle":
            arm.sim.fault("ignore_writes", 4)
        if trouble == "short" and task == "sweep":
            if "short" in hand.said:
                raise KeyboardInterrupt
            hand.said.append("short")
            hand.reach = 0.5

    hand.before = disturb
    if trouble == "torque":
        with Robot.connect(arm.config) as robot, robot.enabled():
            pass
        hand.confirm = lambda question: False  # type: ignore[method-assign]
    errors: dict[str, type[BaseException]] = {
        "short": KeyboardInterrupt,
        "gave up": KeyboardInterrupt,
        "write": DeviceError,
        "torque": SafetyStop,
    }
    with opened(arm) as unit:
        before = registers(unit)
        with pytest.raises(errors.get(trouble, CalibrationError)):
            Procedure(unit, PLAN, hand, path).run()
        assert registers(unit) == before
    assert path.read_text() == text
    assert not signature_path(path).exists()
    assert not path.with_suffix(".undo.json").exists()
    if trouble == "short":
        assert any("moved over" in line for line in hand.said)


def test_a_motor_that_cannot_be_put_back_is_put_back_by_the_next_one(arm: LiveArm) -> None:
    hand = Hand(arm.sim, IDS)
    hand.before = lambda task: arm.sim.fault("silent", 6) if task == "verify" else None
    with opened(arm) as unit:
        before = registers(unit)
        procedure = Procedure(unit, PLAN, hand, arm.config.calibration)
        with pytest.raises(BusTimeout, match="of servo 6"):
            procedure.run()
        assert procedure.undo_path.exists()
        arm.sim.clear("silent")
        assert registers(unit) != before
        procedure.put_back()
        assert registers(unit) == before


def test_a_calibration_cut_off_by_the_power_is_undone_by_the_next(arm: LiveArm) -> None:
    path = arm.config.calibration
    with opened(arm) as unit:
        before = registers(unit)
        procedure = Procedure(unit, PLAN, Hand(arm.sim, IDS), path)
        unit.backup(procedure.undo_path)
        unit.write("gripper", {"homing_offset": 5, "max_angle": 3000})  # as far as it got
        procedure.put_back()
        assert registers(unit) == before
        assert not procedure.undo_path.exists()
        procedure.undo_path.write_text("{}")
        with pytest.raises(CalibrationError, match="cannot be used to put the motors back"):
            procedure.put_back()


def test_the_command_takes_a_script(arm: LiveArm) -> None:
    command = [Path(sys.executable).with_name("wallx-edge"), "calibrate", str(arm.config.path), "--json"]
    hand = Hand(arm.sim, IDS)
    tasks = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if "joints" not in events[-1] or events[-1]["event"] == "done":
                continue
            tasks.append(events[-1]["event"])
            for target in (0.5,) if tasks[-1] == "middle" else (0.0, 1.0, 0.5):
                for joint in events[-1]["joints"]:
                    hand.sim.send(f"hand {IDS[joint]} {target}")
                time.sleep(2.0)  # the hand's way; too short a sweep would be refused
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(30) == 0
    assert tasks == ["sweep", "middle", "verify"]
    assert events[-1]["event"] == "done"
    assert json.loads(arm.config.calibration.read_text()) == events[-1]["joints"]
    Robot.connect(arm.config).disconnect()


def test_giving_up_at_the_command_line_is_an_error(arm: LiveArm) -> None:
    command = [Path(sys.executable).with_name("wallx-edge"), "calibrate", str(arm.config.path)]
    text = arm.config.calibration.read_text()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert "move every joint by hand from stop to stop" in done.stdout
    assert arm.config.calibration.read_text() == text
