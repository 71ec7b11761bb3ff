"""Embodiments and calibrations: the files that say what a robot is and how one unit of it was measured."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from wallx_edge._core import DriveAction, Embodiment, JointCalibration, JointLimits, JointMode, JointSpec
from wallx_edge.errors import CalibrationError, ConfigError
from wallx_edge.tables import Table, read_toml

__all__ = [
    "DriveAction",
    "Embodiment",
    "JointCalibration",
    "JointLimits",
    "JointMode",
    "JointSpec",
    "calibration_path",
    "embodiment_names",
    "embodiment_path",
    "load_calibration",
    "load_embodiment",
    "share_path",
    "with_drops",
]

ENTRY_POINT_GROUP = "wallx_edge.embodiments"
MAX_JOINTS = 64  # bound of the control loop's buffers
MAX_ID = 253  # 254 is the broadcast address
MAX_TICKS = 4095
MAX_HOMING_OFFSET = 1_044_479  # [ticks], of a Dynamixel; Feetech servos hold 2047, which their driver checks
MAX_DEGREES = 720  # of a Damiao motor, which reports angles: its calibration is in whole degrees


def share_path() -> Path:
    """The folder that holds ``drivers/``: in an installed wheel, or the repository of an editable install.

    Raises:
        ConfigError: neither is there; the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    candidates = (package / "share", package.parents[1])
    for candidate in candidates:
        if (candidate / "drivers" / "embodiments").is_dir():
            return candidate
    raise ConfigError(f"no folder drivers/embodiments in {candidates[0]} or {candidates[1]}; install wallx-edge again")


def _builtin() -> dict[str, Path]:
    folder = share_path() / "drivers" / "embodiments"
    return {file.parent.name: file for file in sorted(folder.glob("*/embodiment.toml"))}


def _third_party() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def embodiment_names() -> list[str]:
    """Names that ``load_embodiment`` knows: the built-in ones and those of installed packages, sorted."""
    return sorted({*_builtin(), *_third_party()})


def embodiment_path(name: str) -> Path:
    """The TOML file of a known embodiment.

    Args:
        name: A built-in embodiment, or one that an installed package adds through the entry point group
            ``wallx_edge.embodiments``. The entry point names a path, or a function without arguments that
            returns one.

    Raises:
        ConfigError: unknown name, a name that is taken twice, or an entry point that gives no path.
    """
    builtin, third_party = _builtin(), _third_party()
    if name in builtin and name in third_party:
        raise ConfigError(
            f"embodiment {name!r} is built in and also added by {third_party[name].value!r}; "
            "rename the entry point, or give the path of the file"
        )
    if name in builtin:
        return builtin[name]
    if name not in third_party:
        known = ", ".join(sorted({*builtin, *third_party}))
        raise ConfigError(f"unknown embodiment {name!r}; known are {known}, or give the path of a TOML file")
    point = third_party[name]
    try:
        value = point.load()
        path = value() if callable(value) else value
    except Exception as error:
        raise ConfigError(
            f"embodiment {name!r}: entry point {point.value!r} failed with {type(error).__name__}: {error}"
        ) from error
    if not isinstance(path, str | Path):
        raise ConfigError(
            f"embodiment {name!r}: entry point {point.value!r} gives {type(path).__name__}, must give a path"
        )
    return Path(path)


_JOINT_KEYS = (
    "name",
    "id",
    "model_numbers",
    "max_velocity",
    "max_acceleration",
    "max_jerk",
    "gravity_loaded",
)
_POSITION_KEYS = ("min_position", "max_position", "rest_position", "max_following_error")
_OPTIONAL_KEYS = ("mode", "static_sag", "grips", "drive_timeout", "drive_action", "drive")
WHEEL_RANGE = 1e6  # a joint in velocity mode turns without end: its position only counts turns [rad]


def _joint(table: Table) -> JointSpec:
    mode = JointMode.position
    if table.choice("mode", ("position", "velocity"), "position") == "velocity":
        mode = JointMode.velocity
    is_wheel = mode == JointMode.velocity
    table.check_keys((*_JOINT_KEYS, *(() if is_wheel else _POSITION_KEYS)), _OPTIONAL_KEYS)
    low = -WHEEL_RANGE if is_wheel else table.number("min_position")
    high = WHEEL_RANGE if is_wheel else table.number("max_position")
    if low >= high:
        raise table.fail("min_position", f"is {low:g} rad, must be below max_position = {high:g} rad")
    rest = 0.0 if is_wheel else table.number("rest_position")
    if not low <= rest <= high:
        raise table.fail("rest_position", f"is {rest:g} rad, must be in {low:g}..{high:g} rad")
    following = WHEEL_RANGE if is_wheel else table.positive("max_following_error", "rad")
    sag = table.number("static_sag", 0.0)
    if not 0 <= sag < following:
        raise table.fail("static_sag", f"is {sag:g} rad, must be at least 0 and below {following:g} rad")
    if ("drive_timeout" in table.values) != ("drive_action" in table.values):
        raise table.fail("drive_timeout", "and drive_action: both of them or neither must be given")
    timeout = table.number("drive_timeout", 0.0)
    if "drive_timeout" in table.values and not 0.01 <= timeout <= 10:
        raise table.fail("drive_timeout", f"is {timeout:g} s, must be 0.01..10 s")
    action = getattr(DriveAction, table.choice("drive_action", ("holds", "brakes", "lets_go"), "holds"))
    models = table.values["model_numbers"]
    if not isinstance(models, list) or not models:
        raise table.fail("model_numbers", f"is {models!r}, must be a list of at least one model number")
    for model in models:
        if isinstance(model, bool) or not isinstance(model, int) or not 0 <= model <= 0xFFFF:
            raise table.fail("model_numbers", f"holds {model!r}, must hold whole numbers in 0..65535")
    return JointSpec(
        name=table.text("name"),
        id=table.integer("id", 0, MAX_ID),
        model_numbers=models,
        limits=JointLimits(
            min_position=low,
            max_position=high,
            max_velocity=table.positive("max_velocity", "rad/s"),
            max_acceleration=table.positive("max_acceleration", "rad/s^2"),
            max_jerk=table.positive("max_jerk", "rad/s^3"),
        ),
        rest_position=rest,
        gravity_loaded=table.flag("gravity_loaded"),
        mode=mode,
        max_following_error=following,
        static_sag=sag,
        grips=table.flag("grips") if "grips" in table.values else False,
        drive_timeout=timeout,
        drive_action=action,
        drive=_drive(table),
    )


def _drive(table: Table) -> dict[str, float]:
    drive = table.table("drive")
    return {key: drive.number(key) for key in drive.values}


def with_drops(embodiment: Embodiment, accepts_drop: bool | None) -> tuple[Embodiment, list[str]]:
    """What a robot's user has decided about drives that let gravity-loaded joints go when the computer falls silent.

    Args:
        embodiment: as its file says.
        accepts_drop: ``accept_drop`` of the ROBOT.toml: True arms these timeouts, False leaves them unarmed, so
            that the joints hold; None when it was not said.

    Returns:
        the embodiment to connect, and the names of the joints that will fall when the computer falls silent.

    Raises:
        ConfigError: there are such joints, and nothing was said; names them.
    """
    falling = [
        joint.name
        for joint in embodiment.joints
        if joint.gravity_loaded and joint.drive_timeout > 0 and joint.drive_action == DriveAction.lets_go
    ]
    if not falling:
        return embodiment, []
    if accepts_drop is None:
        names = ", ".join(repr(name) for name in falling)
        raise ConfigError(
            f"embodiment {embodiment.name!r}: the drives of {names} let go when this computer falls silent, and these "
            "joints fall then; say accept_drop = true (armed) or accept_drop = false (not armed, the drives hold) "
            "under [robot] of the robot's file"
        )
    joints = embodiment.joints if accepts_drop else [_unarmed(j) if j.name in falling else j for j in embodiment.joints]
    changed = Embodiment(
        name=embodiment.name, motor_family=embodiment.motor_family, joints=joints, accepts_drop=accepts_drop
    )
    return changed, falling if accepts_drop else []


def _unarmed(joint: JointSpec) -> JointSpec:
    return JointSpec(
        name=joint.name,
        id=joint.id,
        model_numbers=joint.model_numbers,
        limits=joint.limits,
        rest_position=joint.rest_position,
        gravity_loaded=joint.gravity_loaded,
        mode=joint.mode,
        max_following_error=joint.max_following_error,
        static_sag=joint.static_sag,
        grips=joint.grips,
        drive=joint.drive,
    )


def load_embodiment(name_or_path: str | Path) -> Embodiment:
    """Loads the constant description of a robot. Reads one file, opens no device.

    Args:
        name_or_path: A known name (``embodiment_names``), or the path of a TOML file: a ``Path``, or text
            that ends in ``.toml`` or has a slash. A path wins over a name.

    Returns:
        The embodiment; positions [rad], velocities [rad/s], accelerations [rad/s^2], jerks [rad/s^3].

    Raises:
        ConfigError: no such name or file, bad TOML, an unknown or missing key, a value of the wrong type or
            out of bounds; the message names file, joint, key, value and bound.
    """
    is_path = isinstance(name_or_path, Path) or name_or_path.endswith(".toml") or "/" in name_or_path
    file = Path(name_or_path) if is_path else embodiment_path(str(name_or_path))
    values = read_toml(file, "embodiment file ")
    top = Table(file, "", values)
    top.check_keys(("name", "motor_family", "joints"))
    joints = values["joints"]
    if not isinstance(joints, list) or not all(isinstance(joint, dict) for joint in joints):
        raise top.fail("joints", "must be a list of tables, each under [[joints]]")
    if not 1 <= len(joints) <= MAX_JOINTS:
        raise top.fail("joints", f"has {len(joints)} entries, must have 1..{MAX_JOINTS}")
    specs: list[JointSpec] = []
    for index, joint in enumerate(joints):
        table = Table(file, f"joints[{index}] ({joint.get('name', 'without a name')})", joint)
        spec = _joint(table)
        for other in specs:
            if other.name == spec.name:
                raise table.fail("name", f"is {spec.name!r}, which an earlier joint has too")
            if other.id == spec.id:
                raise table.fail("id", f"is {spec.id}, which {other.name!r} has too")
        specs.append(spec)
    return Embodiment(name=top.text("name"), motor_family=top.text("motor_family"), joints=specs)


def calibration_path(embodiment: str, unit: str) -> Path:
    """Where the calibration of one unit lives: ``<config>/wallx-edge/calibration/<embodiment>/<unit>.json``.

    ``<config>`` is ``$XDG_CONFIG_HOME`` when that is an absolute path, else ``~/.config``. The file need not
    exist.

    Raises:
        ConfigError: a name that is empty or would leave the folder.
    """
    for what, name in (("embodiment", embodiment), ("unit", unit)):
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise ConfigError(f"{what} name {name!r} cannot be part of a path; use letters, digits, - and _")
    home = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    config = home if home.is_absolute() else Path.home() / ".config"
    return config / "wallx-edge" / "calibration" / embodiment / f"{unit}.json"


_CALIBRATION_KEYS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")


def load_calibration(path: str | Path, embodiment: Embodiment) -> list[JointCalibration]:
    """Loads the calibration of one unit: LeRobot's JSON, one object per joint. Opens no device.

    Args:
        path: The JSON file.
        embodiment: The robot it belongs to; its joint names must be exactly those of the file.

    Returns:
        One calibration per joint, in the embodiment's order; offsets and ranges in encoder ticks (0..4095), of
        Damiao motors in whole degrees (-720..720).

    Raises:
        CalibrationError: no such file, bad JSON, a missing or surplus joint or field, a value of the wrong
            type or out of bounds, two joints with one id; the message names file, joint, field, value and
            bound.
    """
    file = Path(path)
    try:
        values = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except FileNotFoundError as error:
        raise CalibrationError(
            f"calibration file {file} does not exist; calibrate this {embodiment.name}, "
            "or copy the file that LeRobot wrote for it there"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"calibration file {file} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"calibration file {file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CalibrationError(f"{file} must hold one object per joint, holds {type(values).__name__}")

    names = [joint.name for joint in embodiment.joints]
    for name in names:
        if name not in values:
            raise CalibrationError(f"{file}: joint {name!r} is missing; calibrate this {embodiment.name} again")
    for name in values:
        if name not in names:
            known = ", ".join(names)
            raise CalibrationError(f"{file}: {embodiment.name} has no joint {name!r}, only {known}")

    offset, low, high = MAX_HOMING_OFFSET, 0, MAX_TICKS
    if embodiment.motor_family == "damiao":
        offset, low, high = MAX_DEGREES, -MAX_DEGREES, MAX_DEGREES
    result: list[JointCalibration] = []
    for name in names:
        if not isinstance(values[name], dict):
            raise CalibrationError(f"{file}: joint {name!r} is {values[name]!r}, must be an object")
        table = Table(file, f"joint {name!r}", values[name], CalibrationError)
        table.check_keys(_CALIBRATION_KEYS)
        joint = JointCalibration(
            id=table.integer("id", 0, MAX_ID),
            drive_mode=table.integer("drive_mode", 0, 1),
            homing_offset=table.integer("homing_offset", -offset, offset),
            range_min=table.integer("range_min", low, high),
            range_max=table.integer("range_max", low, high),
        )
        if joint.range_min >= joint.range_max:
            raise table.fail("range_min", f"is {joint.range_min}, must be below range_max = {joint.range_max}")
        for other_name, other in zip(names, result, strict=False):
            if other.id == joint.id:
                raise table.fail("id", f"is {joint.id}, which joint {other_name!r} has too")
        result.append(joint)
    return result


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {key!r} appears twice in one object")
        values[key] = value
    return values
