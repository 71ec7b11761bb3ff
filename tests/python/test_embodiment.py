"""Embodiments and calibrations load completely or say exactly what is wrong and where."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import os
import pty
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from wallx_edge import _core, embodiment
from wallx_edge.embodiment import (
    DriveAction,
    JointMode,
    calibration_path,
    embodiment_names,
    embodiment_path,
    load_calibration,
    load_embodiment,
    share_path,
    with_drops,
)
from wallx_edge.errors import BusError, BusTimeout, CalibrationError, ConfigError

JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]

JOINT = {
    "name": '"hinge"',
    "id": "1",
    "model_numbers": "[777, 2825]",
    "min_position": "-1.0",
    "max_position": "1",
    "max_velocity": "3.0",
    "max_acceleration": "30.0",
    "max_jerk": "600.0",
    "rest_position": "0.25",
    "gravity_loaded": "true",
    "max_following_error": "0.5",
}


def write_embodiment(folder: Path, *joints: dict[str, str], top: str = "") -> Path:
    lines = [top or 'name = "door"\nmotor_family = "feetech_sts"']
    for joint in joints or (JOINT,):
        lines += ["[[joints]]", *(f"{key} = {value}" for key, value in joint.items())]
    file = folder / "robot.toml"
    file.write_text("\n".join(lines))
    return file


def good_calibration() -> dict[str, Any]:
    return {
        name: {"id": i + 1, "drive_mode": 0, "homing_offset": -85, "range_min": 743, "range_max": 3441}
        for i, name in enumerate(JOINTS)
    }


def write_calibration(folder: Path, values: Any) -> Path:
    file = folder / "left.json"
    file.write_text(json.dumps(values))
    return file


# embodiment


DROPPING = {**JOINT, "drive_timeout": "0.5", "drive_action": '"lets_go"'}
WHEEL = {
    key: value
    for key, value in JOINT.items()
    if key not in ("min_position", "max_position", "rest_position", "max_following_error")
} | {"mode": '"velocity"'}


def test_what_a_drive_does_alone_is_read(tmp_path: Path) -> None:
    joint = load_embodiment(write_embodiment(tmp_path, DROPPING)).joints[0]
    assert (joint.drive_timeout, joint.drive_action) == (0.5, DriveAction.lets_go)
    plain = load_embodiment(write_embodiment(tmp_path)).joints[0]
    assert (plain.drive_timeout, plain.drive_action, plain.mode, plain.grips) == (
        0.0,
        DriveAction.holds,
        JointMode.position,
        False,
    )


def test_a_wheel_has_no_range(tmp_path: Path) -> None:
    wheel = load_embodiment(write_embodiment(tmp_path, WHEEL)).joints[0]
    assert wheel.mode == JointMode.velocity
    assert wheel.limits.max_position == -wheel.limits.min_position == 1e6
    with pytest.raises(ConfigError, match="min_position"):
        load_embodiment(write_embodiment(tmp_path, {**WHEEL, "min_position": "0"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drive_timeout": "0.5"}, "drive_timeout and drive_action: both"),
        ({"drive_action": '"holds"'}, "drive_timeout and drive_action: both"),
        ({"drive_timeout": "0", "drive_action": '"holds"'}, "drive_timeout is 0 s, must be 0.01..10"),
        ({"drive_timeout": "0.5", "drive_action": '"falls"'}, "must be one of holds, brakes, lets_go"),
        ({"max_following_error": "0"}, "max_following_error is 0 rad"),
        ({"static_sag": "0.5"}, "static_sag is 0.5 rad, must be at least 0 and below 0.5"),
        ({"static_sag": "-0.1"}, "static_sag is -0.1 rad"),
        ({"mode": '"torque"'}, "mode is 'torque', must be one of position, velocity"),
        ({"grips": "1"}, "grips is 1, must be true or false"),
    ],
)
def test_what_concerns_safety_is_checked(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_embodiment(write_embodiment(tmp_path, {**JOINT, **change}))


def test_a_drop_must_be_accepted_or_refused_in_words(tmp_path: Path) -> None:
    falls = {**DROPPING, "name": '"lift"', "id": "2"}
    stays = {**DROPPING, "name": '"turn"', "id": "3", "gravity_loaded": "false"}
    door = load_embodiment(write_embodiment(tmp_path, JOINT, falls, stays))
    with pytest.raises(ConfigError, match=r"'lift' let go .* accept_drop = true"):
        with_drops(door, None)
    with pytest.raises(ConfigError, match="'lift' let go"):
        _core.make_robot(door, [], _core.BusConfig(port="/dev/null"))

    armed, falling = with_drops(door, True)
    assert falling == ["lift"]
    assert [joint.drive_timeout for joint in armed.joints] == [0.0, 0.5, 0.5]
    assert armed.accepts_drop

    unarmed, falling = with_drops(door, False)
    assert falling == []
    assert [joint.drive_timeout for joint in unarmed.joints] == [0.0, 0.0, 0.5]
    for before, after in zip(door.joints, unarmed.joints, strict=True):
        for field in ("name", "id", "model_numbers", "rest_position", "gravity_loaded", "mode", "grips", "static_sag"):
            assert getattr(before, field) == getattr(after, field)
        assert before.limits.max_jerk == after.limits.max_jerk

    safe, falling = with_drops(load_embodiment("so101"), None)
    assert falling == []
    assert safe.joints[1].drive_timeout == 0


def test_so101_is_complete_and_inside_what_its_servos_can_do() -> None:
    so101 = load_embodiment("so101")
    assert so101.name == "so101"
    assert so101.motor_family == "feetech_sts"
    assert [joint.name for joint in so101.joints] == JOINTS
    assert [joint.id for joint in so101.joints] == [1, 2, 3, 4, 5, 6]
    half_range = (3441 - 743) / 2 * 2 * math.pi / 4096
    for joint in so101.joints:
        assert joint.model_numbers == [777]
        limits = joint.limits
        assert -half_range < limits.min_position < limits.max_position < half_range
        # room on both sides of the rest pose, for a policy that is trained around it
        assert limits.min_position + 0.3 <= joint.rest_position <= limits.max_position - 0.3
        assert 0 < limits.max_velocity <= 4.7  # what an unloaded STS3215 reaches at 7.4 V
        assert limits.max_acceleration > 0 and limits.max_jerk > 0
    assert [joint.name for joint in so101.joints if joint.gravity_loaded] == [
        "shoulder_lift",
        "elbow_flex",
        "wrist_flex",
    ]


def test_every_built_in_embodiment_loads_under_its_own_name() -> None:
    names = sorted(folder.name for folder in (share_path() / "drivers" / "embodiments").iterdir())
    assert names and set(names) <= set(embodiment_names())
    for name in names:
        assert load_embodiment(name).name == name
        assert (embodiment_path(name).parent / "README.md").is_file()


def test_a_path_gives_what_the_file_says(tmp_path: Path) -> None:
    file = write_embodiment(tmp_path)
    for given in (file, str(file)):
        door = load_embodiment(given)
        (joint,) = door.joints
        assert (door.name, door.motor_family, joint.name, joint.id) == ("door", "feetech_sts", "hinge", 1)
        assert joint.model_numbers == [777, 2825]
        limits = joint.limits
        assert (limits.min_position, limits.max_position) == (-1.0, 1.0)
        assert (limits.max_velocity, limits.max_acceleration, limits.max_jerk) == (3.0, 30.0, 600.0)
        assert joint.rest_position == 0.25
        assert joint.gravity_loaded is True


def test_what_is_loaded_cannot_be_written() -> None:
    joint = load_embodiment("so101").joints[0]
    for owner, name in ((joint, "id"), (joint, "limits"), (joint.limits, "max_velocity")):
        with pytest.raises(AttributeError):
            setattr(owner, name, 1)


@pytest.mark.parametrize("key", JOINT)
def test_a_missing_joint_key_is_named(tmp_path: Path, key: str) -> None:
    file = write_embodiment(tmp_path, {k: v for k, v in JOINT.items() if k != key})
    with pytest.raises(ConfigError, match=rf"robot\.toml: joints\[0\] .*'{key}' is missing"):
        load_embodiment(file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "3", "name is 3, must be a non-empty text"),
        ("name", '""', "name is '', must be"),
        ("id", "254", "id is 254, must be 0..253"),
        ("id", "-1", "id is -1, must be 0..253"),
        ("id", "1.0", "id is 1.0, must be a whole number"),
        ("id", "true", "id is True, must be a whole number"),
        ("model_numbers", "777", "model_numbers is 777, must be a list"),
        ("model_numbers", "[]", r"model_numbers is \[\], must be a list"),
        ("model_numbers", "[65536]", "model_numbers holds 65536"),
        ("model_numbers", '["sts"]', "model_numbers holds 'sts'"),
        ("min_position", "1.0", "min_position is 1 rad, must be below max_position = 1 rad"),
        ("min_position", "nan", "min_position is nan, must be a finite number"),
        ("max_position", "inf", "max_position is inf, must be a finite number"),
        ("max_position", '"1"', "max_position is '1', must be a finite number"),
        ("max_velocity", "0.0", "max_velocity is 0 rad/s, must be above 0"),
        ("max_acceleration", "-1", r"max_acceleration is -1 rad/s\^2, must be above 0"),
        ("max_jerk", "false", "max_jerk is False, must be a finite number"),
        ("rest_position", "1.5", "rest_position is 1.5 rad, must be in -1..1 rad"),
        ("gravity_loaded", "1", "gravity_loaded is 1, must be true or false"),
    ],
)
def test_a_wrong_value_names_file_joint_key_value_and_bound(tmp_path: Path, key: str, value: str, message: str) -> None:
    file = write_embodiment(tmp_path, {**JOINT, key: value})
    with pytest.raises(ConfigError, match=rf"robot\.toml: joints\[0\] .*{message}"):
        load_embodiment(file)


def test_unknown_keys_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"robot\.toml: joints\[0\] \(hinge\): 'max_speed' is not a known key"):
        load_embodiment(write_embodiment(tmp_path, {**JOINT, "max_speed": "1"}))
    top = 'name = "door"\nmotor_family = "feetech_sts"\ncolour = "red"'
    with pytest.raises(ConfigError, match=r"robot\.toml: 'colour' is not a known key; known are name, motor_family"):
        load_embodiment(write_embodiment(tmp_path, top=top))


def test_a_missing_top_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'motor_family' is missing"):
        load_embodiment(write_embodiment(tmp_path, top='name = "door"'))


def test_two_joints_with_one_name_or_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"joints\[1\] .*name is 'hinge', which an earlier joint has too"):
        load_embodiment(write_embodiment(tmp_path, JOINT, {**JOINT, "id": "2"}))
    with pytest.raises(ConfigError, match=r"joints\[1\] \(lock\): id is 1, which 'hinge' has too"):
        load_embodiment(write_embodiment(tmp_path, JOINT, {**JOINT, "name": '"lock"'}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\nmotor_family = "b"\njoints = []', "joints has 0 entries, must have 1..64"),
        ('name = "a"\nmotor_family = "b"\njoints = 3', "joints must be a list of tables"),
        ('name = "a"\nmotor_family = "b"\njoints = [3]', "joints must be a list of tables"),
        ("name = ", "is not TOML"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "robot.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"robot\.toml.*{message}"):
        load_embodiment(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        load_embodiment(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml cannot be read"):
        load_embodiment(tmp_path / "binary.toml")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown embodiment 'so102'; known are .*so101"):
        load_embodiment("so102")


# entry points: loaded from a module that stands on the path, as an installed package's would


def add_points(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    found = [EntryPoint(name, value, "wallx_edge.embodiments") for name, value in values.items()]

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [point for point in found if point.group == group]

    monkeypatch.setattr(embodiment, "entry_points", entry_points)


@pytest.fixture
def door_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    file = write_embodiment(tmp_path)
    (tmp_path / "door_package.py").write_text(
        f"PATH = {str(file)!r}\nNUMBER = 3\ndef path():\n    return PATH\ndef broken():\n    raise OSError('no')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "door_package", raising=False)
    return "door_package"


@pytest.mark.parametrize("attribute", ["PATH", "path"])
def test_an_entry_point_joins_the_table(door_package: str, monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    add_points(monkeypatch, {"door": f"{door_package}:{attribute}"})
    assert {"door", "so101"} <= set(embodiment_names())
    assert load_embodiment("door").joints[0].name == "hinge"
    assert load_embodiment("so101").name == "so101"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("door_package:NUMBER", "gives int, must give a path"),
        ("door_package:broken", "failed with OSError: no"),
        ("door_package:absent", "failed with AttributeError"),
        ("no_such_package:path", "failed with ModuleNotFoundError"),
    ],
)
def test_a_broken_entry_point_is_named_and_harms_no_other(
    door_package: str, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    add_points(monkeypatch, {"door": value})
    with pytest.raises(ConfigError, match=f"embodiment 'door': entry point '{value}' {message}"):
        load_embodiment("door")
    assert load_embodiment("so101").name == "so101"


def test_an_entry_point_cannot_replace_a_built_in_embodiment(
    door_package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_points(monkeypatch, {"so101": f"{door_package}:PATH"})
    with pytest.raises(ConfigError, match="'so101' is built in and also added by 'door_package:PATH'"):
        load_embodiment("so101")


# calibration


def test_a_lerobot_file_loads_in_joint_order(tmp_path: Path) -> None:
    values = good_calibration()
    values["elbow_flex"] |= {"drive_mode": 1, "homing_offset": 2047, "range_min": 0, "range_max": 4095}
    file = write_calibration(tmp_path, dict(reversed(values.items())))
    calibration = load_calibration(file, load_embodiment("so101"))
    assert [joint.id for joint in calibration] == [1, 2, 3, 4, 5, 6]
    elbow, pan = calibration[2], calibration[0]
    assert (elbow.drive_mode, elbow.homing_offset, elbow.range_min, elbow.range_max) == (1, 2047, 0, 4095)
    assert (pan.drive_mode, pan.homing_offset, pan.range_min, pan.range_max) == (0, -85, 743, 3441)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", 254, "id is 254, must be 0..253"),
        ("id", 1, "id is 1, which joint 'shoulder_pan' has too"),
        ("id", "3", "id is '3', must be a whole number"),
        ("drive_mode", 2, "drive_mode is 2, must be 0..1"),
        ("drive_mode", True, "drive_mode is True, must be a whole number"),
        ("homing_offset", 1044480, "homing_offset is 1044480, must be -1044479..1044479"),
        ("homing_offset", -1044480, "homing_offset is -1044480, must be -1044479..1044479"),
        ("homing_offset", 1.5, "homing_offset is 1.5, must be a whole number"),
        ("range_min", -1, "range_min is -1, must be 0..4095"),
        ("range_min", 3441, "range_min is 3441, must be below range_max = 3441"),
        ("range_max", 4096, "range_max is 4096, must be 0..4095"),
        ("range_max", None, "range_max is None, must be a whole number"),
    ],
)
def test_a_wrong_field_names_file_joint_field_value_and_bound(
    tmp_path: Path, field: str, value: Any, message: str
) -> None:
    values = good_calibration()
    values["elbow_flex"][field] = value
    with pytest.raises(CalibrationError, match=rf"left\.json: joint 'elbow_flex': {message}"):
        load_calibration(write_calibration(tmp_path, values), load_embodiment("so101"))


@pytest.mark.parametrize("field", ["id", "drive_mode", "homing_offset", "range_min", "range_max"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    values = good_calibration()
    del values["gripper"][field]
    with pytest.raises(CalibrationError, match=rf"left\.json: joint 'gripper': '{field}' is missing"):
        load_calibration(write_calibration(tmp_path, values), load_embodiment("so101"))


def test_missing_and_surplus_joints_and_fields_are_named(tmp_path: Path) -> None:
    so101 = load_embodiment("so101")
    values = good_calibration()
    del values["wrist_roll"]
    with pytest.raises(CalibrationError, match=r"left\.json: joint 'wrist_roll' is missing"):
        load_calibration(write_calibration(tmp_path, values), so101)
    values = good_calibration()
    values["tail"] = values["gripper"]
    with pytest.raises(CalibrationError, match=r"left\.json: so101 has no joint 'tail', only shoulder_pan"):
        load_calibration(write_calibration(tmp_path, values), so101)
    values = good_calibration()
    values["gripper"]["colour"] = 1
    with pytest.raises(CalibrationError, match="joint 'gripper': 'colour' is not a known key"):
        load_calibration(write_calibration(tmp_path, values), so101)
    values = good_calibration()
    values["gripper"] = 3
    with pytest.raises(CalibrationError, match="joint 'gripper' is 3, must be an object"):
        load_calibration(write_calibration(tmp_path, values), so101)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        pytest.param("[" * 100_000, "is not JSON", id="deep"),
        ("[1]", "must hold one object per joint, holds list"),
        ('{"gripper": {}, "gripper": {}}', "key 'gripper' appears twice"),
    ],
)
def test_a_calibration_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "left.json"
    file.write_text(text)
    with pytest.raises(CalibrationError, match=rf"left\.json.*{message}"):
        load_calibration(file, load_embodiment("so101"))


def test_a_missing_calibration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"gone\.json does not exist; calibrate this so101"):
        load_calibration(tmp_path / "gone.json", load_embodiment("so101"))


def test_calibrations_live_in_the_users_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    expected = tmp_path / "wallx-edge" / "calibration" / "so101" / "left.json"
    assert calibration_path("so101", "left") == expected
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CONFIG_HOME", unset)
        assert calibration_path("so101", "left").is_relative_to(tmp_path / "home" / ".config")
    for bad in ("", "..", "a/b", "a\0b"):
        with pytest.raises(ConfigError, match="unit name"):
            calibration_path("so101", bad)


# the robot behind them


def so101_robot(tmp_path: Path, port: str, baud_rate: int = 1_000_000) -> _core.Robot:
    so101 = load_embodiment("so101")
    calibration = load_calibration(write_calibration(tmp_path, good_calibration()), so101)
    return _core.make_robot(so101, calibration, _core.BusConfig(port=port, baud_rate=baud_rate))


def test_a_robot_cannot_be_moved_or_made_from_python(tmp_path: Path) -> None:
    robot = so101_robot(tmp_path, "/dev/null")
    public = {name for name in dir(robot) if not name.startswith("_")}
    assert public == {"bus_descriptor", "bus_trouble", "connect", "disconnect", "embodiment", "serial"}
    with pytest.raises(TypeError):
        _core.Robot()


def test_robots_have_serials_and_narrowed_limits(tmp_path: Path) -> None:
    so101 = load_embodiment("so101")
    values = good_calibration()
    values["shoulder_pan"] |= {"range_min": 1500, "range_max": 2500}
    calibration = load_calibration(write_calibration(tmp_path, values), so101)
    one, two = (_core.make_robot(so101, calibration, _core.BusConfig(port="/dev/null")) for _ in range(2))
    assert one.serial != two.serial
    assert one.embodiment.joints[0].limits.max_position == pytest.approx(500 * 2 * math.pi / 4096)
    assert one.embodiment.joints[1].limits.max_position == so101.joints[1].limits.max_position


def test_wrong_port_and_rate_are_named(tmp_path: Path) -> None:
    with pytest.raises(BusError, match="/dev/null is not a serial device"):
        so101_robot(tmp_path, "/dev/null").connect()
    with pytest.raises(BusError, match="/dev/no-such-port"):
        so101_robot(tmp_path, "/dev/no-such-port").connect()
    with pytest.raises(ConfigError, match=r"4000001, must be 9600\.\.4000000"):
        so101_robot(tmp_path, "/dev/null", 4_000_001)


def test_a_line_without_servos_names_every_joint_and_frees_the_port(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    try:
        port = os.ttyname(slave)
        robot = so101_robot(tmp_path, port)
        for _ in range(2):  # the second try finds the port free again
            with pytest.raises(BusTimeout, match=f"no answer on {port}") as caught:
                robot.connect()
            for index, name in enumerate(JOINTS):
                assert f"'{name}' (id {index + 1})" in str(caught.value)
        assert isinstance(caught.value, TimeoutError)
        robot.disconnect()
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("kind", ["carrier-pigeon", "socketcan"])
def test_a_bus_the_motors_cannot_use_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    so101 = load_embodiment("so101")
    calibration = load_calibration(write_calibration(tmp_path, good_calibration()), so101)
    with pytest.raises(ConfigError, match=f"bus kind '{kind}' .* these motors speak bytes, which serial"):
        _core.make_robot(so101, calibration, _core.BusConfig(kind=kind, port="x"))
